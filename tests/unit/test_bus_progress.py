from __future__ import annotations

from shared.bus.progress import SlidingCount
from shared.clock import ManualClock
from tests.support.event_payloads import START


def test_what_happened_within_a_minute_is_counted() -> None:
    clock = ManualClock(START)
    count = SlidingCount(clock)
    count.add(2)
    clock.advance(30)
    count.add(3)

    assert count.total() == 5
    clock.advance(30)
    assert count.total() == 3
    clock.advance(29)
    assert count.total() == 3
    clock.advance(1)
    assert count.total() == 0


def test_a_long_silence_forgets_everything() -> None:
    clock = ManualClock(START)
    count = SlidingCount(clock)
    count.add(7)

    clock.advance(3600 * 24 + 17)

    assert count.total() == 0
    count.add(1)
    assert count.total() == 1
