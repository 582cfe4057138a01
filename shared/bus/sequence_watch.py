"""Finds out that events were lost: producers number what they publish, and a number that never comes is a gap. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

#: A number that is missing for so long is lost; until then it may lie on a stream that was not read yet.
GRACE_SECONDS = 10.0
#: Producers and numbers that are remembered; what goes beyond is forgotten without an alarm.
_MAX_PRODUCERS = 1000
_MAX_MISSING = 10_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of one producer that were published and never came.

    Attributes:
        producer: Which life of which process.
        first: Lowest missing sequence.
        last: Highest missing sequence.
        count: How many are missing between both.
    """

    producer: str
    first: int
    last: int
    count: int


@dataclass(slots=True)
class _Producer:
    highest: int
    missing: dict[int, float] = field(default_factory=dict)


class SequenceWatch:
    """Watches all events of all producers; only who subscribed to every type can tell a gap from a filter.

    A producer is known from the first event that is seen of it: what it published before may have been trimmed.
    """

    def __init__(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._producers: OrderedDict[bytes, _Producer] = OrderedDict()
        self._caught_up_at = 0.0

    def seen(self, producer: bytes, sequence: int, *, now: float) -> None:
        """Take note of an event; ``now`` is monotonic, seconds."""
        known = self._producers.get(producer)
        if known is None:
            self._producers[producer] = _Producer(sequence)
            if len(self._producers) > _MAX_PRODUCERS:
                self._producers.popitem(last=False)
            return
        if sequence == known.highest + 1:
            known.highest = sequence
        elif sequence > known.highest:
            for number in range(known.highest + 1, min(sequence, known.highest + 1 + _MAX_MISSING)):
                known.missing[number] = now
            known.highest = sequence
        else:
            known.missing.pop(sequence, None)

    def caught_up(self, *, now: float) -> None:
        """Take note that nothing lies unread on any stream: what is missing now will not come from there."""
        self._caught_up_at = now

    def gaps(self, *, now: float) -> list[Gap]:
        """Return what is lost and was not returned before."""
        found = []
        for name, producer in self._producers.items():
            lost = sorted(
                number
                for number, since in producer.missing.items()
                if now - since >= self._grace_seconds and since <= self._caught_up_at
            )
            if lost:
                found.append(Gap(name.decode(errors="replace"), lost[0], lost[-1], len(lost)))
                for number in lost:
                    del producer.missing[number]
        return found
