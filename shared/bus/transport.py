"""The ports under the bus: what a stream store and a durable buffer must be able to do."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.bus.trimming import StreamState
from shared.disk_buffer import BufferedEntry, Remembered
from shared.errors import TransientError

#: ``(stream, entry id)``: an entry id alone is unique within its stream only.
EntryKey = tuple[str, str]


@dataclass(slots=True)
class Entry:
    """One entry as the store delivers it.

    Attributes:
        stream: Full name of its stream.
        entry_id: Given by the store.
        fields: Raw bytes by field name.
        attempt: Number of the try that this delivery is for, from 1; above 1 when earlier ones began.
        term: Which time of owning its partition it was read in; 0 where partitions have no owners.
    """

    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]
    attempt: int = 1
    term: int = 0

    @property
    def key(self) -> EntryKey:
        """What names this entry among all."""
        return self.stream, self.entry_id


@dataclass(frozen=True, slots=True)
class NewEntry:
    """One entry on its way into a stream.

    Attributes:
        stream: Full name of its stream.
        fields: Raw bytes by field name.
    """

    stream: str
    fields: Mapping[bytes, bytes]


class Appender(Protocol):
    """Where a publisher writes.

    Attributes:
        generation: Counts the connections to the store; another number than before means that there was an outage,
            after which the store may have forgotten its latest entries.
        connected: Whether ``append`` writes at once over the connection that ``generation`` counts.
    """

    @property
    def generation(self) -> int: ...

    @property
    def connected(self) -> bool: ...

    async def connect(self) -> None:
        """Make sure that there is a connection.

        Raises:
            ConnectionLostError: There is none to be had.
        """
        ...

    async def wait_available(self) -> None:
        """Wait until the store may be reachable again."""
        ...

    async def append(self, entries: Sequence[NewEntry]) -> list[str | TransientError]:
        """Add the entries in their order; return the id of each, or why the store refused it.

        Raises:
            ConnectionLostError: The store cannot be reached; each entry may or may not have been added.
        """
        ...

    async def missing(self, remembered: Sequence[Remembered]) -> list[Remembered]:
        """Return those that the store acknowledged once and no longer has, other than by trimming.

        Raises:
            ConnectionLostError: The store cannot be reached.
        """
        ...


class EventBuffer(Protocol):
    """Where events wait while the store is away, and what it acknowledged lately; see ``DiskBuffer``."""

    @property
    def events(self) -> int: ...

    @property
    def alarm(self) -> str | None: ...

    async def append(self, entries: Sequence[BufferedEntry]) -> None: ...

    async def oldest(self, limit: int) -> list[BufferedEntry]: ...

    async def settle(self, entries: Sequence[BufferedEntry], appended: Sequence[str]) -> None: ...

    def remember(self, entries: Sequence[BufferedEntry], appended: Sequence[str]) -> None: ...

    async def remembered(self, *, within_seconds: float | None = None) -> list[Remembered]: ...

    async def save_cursors(self, cursors: Mapping[str, str]) -> None: ...

    async def cursors(self) -> dict[str, str]: ...


class EntrySource(Protocol):
    """One consumer's view of its group: what it gets, and how it settles it.

    Every coroutine raises ConnectionLostError when the store cannot be reached.
    """

    async def open(self, streams: Sequence[str]) -> None:
        """Make sure that the streams and this service's group on each exist.

        A group that is missing begins at the durable cursor, else at the first entry.
        """
        ...

    async def read(self, limit: int) -> list[Entry]:
        """Wait for entries that no consumer of the group has yet; may return none. At most ``limit`` per stream."""
        ...

    async def reclaim(self, *, idle_seconds: float | None, skip: Container[EntryKey]) -> list[Entry]:
        """Take delivered, unsettled entries: this consumer's own (None), or anyone's that nobody touched for so long.

        Entries in ``skip`` are in hand already and stay out of the result. ``Entry.attempt`` is one more than the
        tries begun so far.
        """
        ...

    async def hold(self, entries: Sequence[Entry]) -> None:
        """Say that this consumer works on the entries, at try ``Entry.attempt``: nobody else takes them meanwhile."""
        ...

    def owns(self, entry: Entry) -> bool:
        """Tell whether this consumer may still work on what it read.

        False once the entry's partition was lost, even if it came back: whoever takes a partition is given all that is
        unsettled there anew, in order.
        """
        ...

    def let_go(self, entry: Entry) -> None:
        """Take note that this consumer will not settle the entry."""
        ...

    async def ack(self, entries: Sequence[Entry]) -> None:
        """Mark the entries as dealt with."""
        ...

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        """Add ``fields`` to the service's dead letters and mark ``entry`` as dealt with, in this order at the least."""
        ...

    async def release(self) -> None:
        """Let others take at once what this consumer has not settled, and stop taking part."""
        ...


class StreamKeeper(Protocol):
    """What keeps streams from growing without end. Raises ConnectionLostError when the store cannot be reached."""

    async def states(self, streams: Sequence[str]) -> list[StreamState]:
        """Return the state of each stream that exists."""
        ...

    async def trim(self, stream: str, *, below: str, at_most: int) -> int:
        """Drop up to ``at_most`` of the oldest entries with ids lower than ``below``; return how many went."""
        ...


class EventHistory(Protocol):
    """What still lies in the streams. Raises ConnectionLostError when the store cannot be reached."""

    def id_at(self, moment: datetime) -> str:
        """Return the lowest id that an entry of ``moment`` (aware) can have."""
        ...

    async def entries(self, stream: str, *, since: str, until: str, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries with ids from ``since`` to ``until`` (both included), oldest first."""
        ...

    async def rewind(self, streams: Sequence[str], *, service: str, to: str) -> list[str]:
        """Let the group of ``service`` read again from ``to`` on (included); return the streams that it reads."""
        ...
