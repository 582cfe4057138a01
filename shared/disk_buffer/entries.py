"""What the disk buffer holds, and how it looks as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from struct import Struct, pack, unpack_from

_COUNT = Struct("<I")
#: Time, priority, number of fields.
_ABOUT = Struct("<dBH")


@dataclass(frozen=True, slots=True)
class BufferedEntry:
    """An event as it goes to its stream.

    Attributes:
        stream: Full name of the stream.
        fields: Raw bytes by field name.
        event_id: Id of the event.
        priority: 1 is never dropped, 4 goes first.
        number: Position in the backlog, given by the buffer; no other entry ever has it.
    """

    stream: str
    fields: Mapping[bytes, bytes]
    event_id: str
    priority: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class Remembered:
    """An event that the store acknowledged.

    Attributes:
        entry: The event.
        entry_id: Id that the store gave.
        at: Wall time of the acknowledgement, seconds since 1970.
    """

    entry: BufferedEntry
    entry_id: str
    at: float


def packed(entries: Iterable[tuple[BufferedEntry, str, float]]) -> bytes:
    """Return entries with their ids and times as one string: count and lengths of all parts, then the parts."""
    parts: list[bytes] = []
    for entry, entry_id, at in entries:
        parts += (
            _ABOUT.pack(at, entry.priority, len(entry.fields)),
            entry.stream.encode(),
            entry.event_id.encode(),
            entry_id.encode(),
        )
        for name_and_value in entry.fields.items():
            parts += name_and_value
    lengths = pack(f"<{len(parts)}I", *map(len, parts))
    return b"".join((_COUNT.pack(len(parts)), lengths, *parts))


def unpacked(body: bytes) -> Iterator[Remembered]:
    """Yield what ``packed`` was given."""
    (count,) = _COUNT.unpack_from(body)
    lengths = unpack_from(f"<{count}I", body, _COUNT.size)
    ends = accumulate(lengths, initial=_COUNT.size * (1 + count))
    parts = [body[begin:end] for begin, end in pairwise(ends)]
    place = 0
    while place < count:
        about, stream, event_id, entry_id = parts[place : place + 4]
        at, priority, fields = _ABOUT.unpack(about)
        end = place + 4 + 2 * fields
        by_name = dict(zip(parts[place + 4 : end : 2], parts[place + 5 : end : 2], strict=True))
        yield Remembered(BufferedEntry(stream.decode(), by_name, event_id.decode(), priority), entry_id.decode(), at)
        place = end


def latest_of_each(bodies: Iterable[bytes], *, since: float) -> list[Remembered]:
    """Return what was acknowledged from ``since`` on, every event once, as it was the last time, the oldest first."""
    latest: dict[str, Remembered] = {}
    for body in bodies:
        for one in unpacked(body):
            if one.at >= since:
                latest.pop(one.entry.event_id, None)
                latest[one.entry.event_id] = one
    return list(latest.values())
