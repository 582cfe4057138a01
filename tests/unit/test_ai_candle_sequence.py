"""Which candle comes next."""

from __future__ import annotations

import dataclasses

import pytest

from services.ai_service.domain.candle_events import candle_closed, candle_event_id, candle_of, candle_trace_id
from services.ai_service.domain.candle_sequence import Arrival, CandleSequence
from tests.support.ai_market import walk

CANDLES = walk(10)


def after(count: int) -> CandleSequence:
    sequence = CandleSequence("1m", CANDLES[0].open_time)
    for candle in CANDLES[:count]:
        assert sequence.judge(candle) is Arrival.NEXT
        sequence.advance(candle)
    return sequence


def test_known_next_and_ahead() -> None:
    sequence = after(3)

    assert sequence.judge(CANDLES[2]) is Arrival.KNOWN
    assert sequence.judge(CANDLES[0]) is Arrival.KNOWN
    assert sequence.judge(CANDLES[3]) is Arrival.NEXT
    assert sequence.judge(CANDLES[4]) is Arrival.AHEAD


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_price_that_jumps_tenfold_is_doubted(factor: float) -> None:
    sequence = after(3)

    assert sequence.judge(dataclasses.replace(CANDLES[3], close=CANDLES[3].close * factor)) is Arrival.IMPLAUSIBLE


def test_the_first_candle_has_nothing_to_be_compared_with() -> None:
    assert after(0).judge(dataclasses.replace(CANDLES[0], close=1e9)) is Arrival.NEXT


def test_giving_candles_up_counts_them_and_never_goes_back() -> None:
    sequence = after(3)

    assert sequence.skip_to(CANDLES[6].open_time) == 3
    assert sequence.judge(CANDLES[6]) is Arrival.NEXT
    assert sequence.skip_to(CANDLES[2].open_time) == 0
    assert sequence.judge(CANDLES[6]) is Arrival.NEXT


def test_the_same_candle_has_one_name_and_one_trace_per_run() -> None:
    once, again = candle_event_id("r1", CANDLES[0]), candle_event_id("r1", CANDLES[0])

    assert once == again
    assert candle_trace_id(once) == candle_trace_id(again) != once
    assert len({once, candle_event_id("r2", CANDLES[0]), candle_event_id("r1", CANDLES[1])}) == 3


def test_a_candle_survives_the_way_through_its_event() -> None:
    assert candle_of(candle_closed(CANDLES[0], "rest")) == CANDLES[0]
