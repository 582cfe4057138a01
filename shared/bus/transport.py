"""The ports under the bus: what a stream store must be able to do."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """

    stream: str
    entry_id: str
    fields: Mapping[bytes, bytes]
    attempt: int = 1

    @property
    def key(self) -> EntryKey:
        """What names this entry among all."""
        return self.stream, self.entry_id


class Appender(Protocol):
    """Where a publisher writes. A disk buffer or a batching writer can stand in front of the store."""

    async def append(self, stream: str, fields: Mapping[str, bytes]) -> None:
        """Add one entry.

        Raises:
            ConnectionLostError: The store cannot be reached; the entry may or may not have been added.
        """
        ...


class EntrySource(Protocol):
    """One consumer's view of its group: what it gets, and how it settles it.

    Every method raises ConnectionLostError when the store cannot be reached.
    """

    async def open(self, streams: Sequence[str]) -> None:
        """Make sure that the streams and this service's group on each exist; new groups begin at the first entry."""
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

    async def ack(self, entries: Sequence[Entry]) -> None:
        """Mark the entries as dealt with."""
        ...

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        """Add ``fields`` to the service's dead letters and mark ``entry`` as dealt with, both or neither."""
        ...

    async def release(self) -> None:
        """Let others take at once what this consumer has not settled, and stop taking part."""
        ...
