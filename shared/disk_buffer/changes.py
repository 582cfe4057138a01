"""What goes into the file of a disk buffer, what comes out of it, and the port that it lies behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Row:
    """An entry of the backlog; priority 1 is never dropped, 4 goes first."""

    priority: int
    body: bytes
    number: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to remember: when the latest was acknowledged (seconds since 1970), how many, and all in one body."""

    at: float
    events: int
    body: bytes


@dataclass(slots=True)
class Changes:
    """What is written together.

    Attributes:
        appends: New entries of the backlog; each list is kept as a whole or not at all.
        settled: Numbers that leave the backlog.
        batches: Events to remember.
        cursors: Positions by stream.
    """

    appends: list[Sequence[Row]] = field(default_factory=list)
    settled: list[int] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    cursors: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """How much room they need, about."""
        return sum(len(row.body) for rows in self.appends for row in rows) + sum(len(one.body) for one in self.batches)


@dataclass(slots=True)
class Outcome:
    """What became of changes, and how the file stands now.

    Attributes:
        events: Entries in the backlog.
        bytes: Their size.
        trouble: Why the file cannot take more, in one line that stays the same as long as the cause does.
        is_written: Whether the disk took the changes, other than what is to be remembered.
        is_kept: Per append, whether it is in the backlog; the limit may leave no room for it.
        settled: Entries that have left the backlog for their streams.
        dropped: Entries that were dropped to make room, by priority.
    """

    events: int = 0
    bytes: int = 0
    trouble: str | None = None
    is_written: bool = False
    is_kept: list[bool] = field(default_factory=list)
    settled: int = 0
    dropped: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a file keeps.

    Attributes:
        limit_bytes: Size of the backlog.
        keep_seconds: How long events are remembered.
        keep_events: Latest events that are remembered however old they are.
        keep_bytes: Size of what is remembered; comes before the other two.
    """

    limit_bytes: int
    keep_seconds: float
    keep_events: int
    keep_bytes: int


class BufferStorage(Protocol):
    """What the disk buffer asks of its file, in one thread; see ``BufferFile``."""

    def open(self) -> Outcome: ...

    def commit(self, changes: Changes) -> Outcome: ...

    def tidy(self) -> Outcome: ...

    def oldest(self, limit: int) -> list[Row]: ...

    def remembered(self) -> list[bytes]: ...

    def cursors(self) -> dict[str, str]: ...

    def close(self) -> None: ...
