"""Planners of executions: from what an execution sees to its next child."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from services.exec_risk_service.domain.executions import Slice, Strategy, Urgency
from services.exec_risk_service.domain.slippage import HALF_LIFE, remembered
from services.exec_risk_service.domain.strategies import limit, market, smart, twap, vwap
from services.exec_risk_service.domain.strategies.slicing import Frame
from services.exec_risk_service.domain.strategies.smart import Situation
from services.exec_risk_service.domain.strategies.view import (
    CancelResting,
    ChildOrder,
    GiveUp,
    RestingChild,
    Send,
    Wait,
)
from shared.trading.candles import Candle
from shared.trading.orders import OrderType, Side, TimeInForce
from tests.support.planning import BTCUSDT, T0, book, carry_out, every, view

HOUR = timedelta(hours=1)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


# -- MARKET ------------------------------------------------------------------------------------------------------------


def test_a_deep_book_gives_a_market_order() -> None:
    assert market.plan(view(quote=book(size=10))) == Send(ChildOrder(Decimal(1), OrderType.MARKET))


def test_a_thin_book_gives_a_bounded_order_at_the_guard() -> None:
    planned = market.plan(view(target=Decimal(30)))

    assert planned == Send(ChildOrder(Decimal(30), OrderType.LIMIT, Decimal(50_250), TimeInForce.IOC))


def test_an_average_beyond_the_guard_gives_a_bounded_order() -> None:
    planned = market.plan(view(target=Decimal(20), guard_price=Decimal(50_005)))

    assert isinstance(planned, Send)
    assert planned.child.price == Decimal(50_005)


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_a_best_price_beyond_the_guard_is_refused_with_the_numbers(side: Side) -> None:
    guard = Decimal(50_000) * (1 + side.sign * Decimal("0.005"))
    moved = book("50300", "50300.1") if side is Side.BUY else book("49700", "49700.1")

    planned = market.plan(view(side=side, guard_price=guard, quote=moved))

    assert isinstance(planned, GiveUp)
    assert "0.60 % worse than the arrival price 50000" in planned.reason


def test_a_crossed_book_is_not_believed() -> None:
    planned = market.plan(view(quote=book("50001", "50000")))

    assert isinstance(planned, Send)
    assert planned.child.time_in_force is TimeInForce.IOC


def test_more_than_the_exchange_takes_at_once_is_sent_in_parts() -> None:
    _, sent, _ = carry_out(
        view(target=Decimal(250)), market.plan, moments=every(1, 9), quotes=lambda _: book(size=1000)
    )

    assert [one.child.quantity for one in sent] == [Decimal(120), Decimal(120), Decimal(10)]


# -- LIMIT -------------------------------------------------------------------------------------------------------------


def test_a_limit_order_rests_at_the_touch_as_a_maker() -> None:
    planned = limit.plan(view())

    assert planned == Send(ChildOrder(Decimal(1), OrderType.LIMIT, Decimal("50000.0"), TimeInForce.GTX))


@pytest.mark.parametrize(
    ("bid", "after", "moves"),
    [
        ("50000.0", 60.0, False),  # still at the touch: it keeps its place in the queue
        ("49999.0", 60.0, False),  # the market came towards it
        ("50000.2", 1.0, False),  # two ticks for a second
        ("50000.2", 5.0, True),  # two ticks for a while
        ("50000.3", 1.0, True),  # three ticks
        ("50300.0", 5.0, False),  # beyond the guard nothing follows
    ],
)
def test_it_follows_the_touch_when_that_leaves(bid: str, after: float, *, moves: bool) -> None:
    resting = RestingChild(Decimal("50000.0"), T0)
    quote = book(bid, str(Decimal(bid) + 1))

    planned = limit.plan(view(resting=resting, quote=quote, now=T0 + seconds(after)))

    assert isinstance(planned, CancelResting if moves else Wait)


@pytest.mark.parametrize(("urgency", "ends"), [(Urgency.HIGH, Send), (Urgency.NORMAL, Send), (Urgency.LOW, GiveUp)])
def test_when_its_patience_ends_it_crosses_or_gives_up_by_urgency(urgency: Urgency, ends: type) -> None:
    late = T0 + limit.PATIENCE[urgency].rests
    resting = RestingChild(Decimal("50000.0"), T0)

    assert isinstance(limit.plan(view(urgency=urgency, resting=resting, now=late)), CancelResting)
    assert isinstance(limit.plan(view(urgency=urgency, chases=1, children=1, now=late)), ends)


def test_it_follows_a_limited_number_of_times() -> None:
    _, sent, _ = carry_out(
        view(urgency=Urgency.HIGH),
        limit.plan,
        moments=every(0.5, 30),
        quotes=lambda at: book(50_000 + (at - T0).total_seconds(), 50_001 + (at - T0).total_seconds()),
    )

    kinds = [one.child.time_in_force for one in sent]
    assert kinds == [TimeInForce.GTX] * 4 + [None]
    assert sent[-1].filled == 1


# -- TWAP and VWAP -----------------------------------------------------------------------------------------------------


def frame(slices: int = 10, minutes: float = 10, seed: str = "one") -> Frame:
    return Frame(T0, timedelta(minutes=minutes), slices, seed)


def test_twap_cuts_equal_slices_over_the_time() -> None:
    schedule = twap.schedule(Decimal(1), Decimal(50_000), BTCUSDT, frame())

    assert [part.quantity for part in schedule] == [Decimal("0.1")] * 10
    assert schedule[0].due == T0
    gaps = [(b.due - a.due).total_seconds() for a, b in pairwise(schedule)]
    assert all(30 <= gap <= 90 for gap in gaps)
    assert len(set(gaps)) > 1  # shaken


def test_the_same_seed_gives_the_same_schedule_and_another_one_another() -> None:
    schedules = [twap.schedule(Decimal(1), Decimal(50_000), BTCUSDT, frame(seed=seed)) for seed in ("a", "a", "b")]

    assert schedules[0] == schedules[1] != schedules[2]


def test_slices_are_fewer_where_they_would_be_too_small() -> None:
    schedule = twap.schedule(Decimal("0.013"), Decimal(50_000), BTCUSDT, frame())

    assert [part.quantity for part in schedule] == [Decimal("0.004"), Decimal("0.004"), Decimal("0.005")]


def test_a_sliced_order_is_sent_slice_by_slice_and_ends_complete() -> None:
    schedule = twap.schedule(Decimal(1), Decimal(50_000), BTCUSDT, frame())

    seen, sent, _ = carry_out(view(schedule=schedule), twap.plan, moments=every(5, 200), quotes=lambda _: book())

    assert [one.filled for one in sent] == [Decimal("0.1")] * 10
    assert seen.remaining == 0


def test_slices_wait_while_the_market_is_beyond_the_guard_and_catch_up_in_bounded_steps() -> None:
    schedule = twap.schedule(Decimal(1), Decimal(50_000), BTCUSDT, frame())
    away = T0 + timedelta(minutes=5)

    seen, sent, _ = carry_out(
        view(schedule=schedule),
        twap.plan,
        moments=every(1, 900),
        quotes=lambda at: book("50300", "50300.1") if T0 + seconds(1) <= at < away else book(),
    )

    assert not [one for one in sent if T0 + seconds(1) <= one.at < away]
    late = [one for one in sent if one.at >= away]
    assert max(one.child.quantity for one in late) == Decimal("0.2")
    gaps = [(b.at - a.at).total_seconds() for a, b in pairwise(late)]
    assert min(gaps) >= 10
    assert seen.remaining == 0


def test_a_rest_under_the_smallest_order_goes_with_the_last_slice() -> None:
    schedule = (Slice(T0, Decimal("0.499")), Slice(T0 + seconds(60), Decimal("0.500")))

    first = twap.plan(view(target=Decimal("0.5"), schedule=schedule))

    assert first == Send(ChildOrder(Decimal("0.500"), OrderType.MARKET))


def hourly(volumes: list[float]) -> list[Candle]:
    return [
        Candle("BTCUSDT", "1h", T0 - HOUR * (len(volumes) - number), 1.0, 1.0, 1.0, 1.0, volume)
        for number, volume in enumerate(volumes)
    ]


def test_vwap_follows_the_volume_of_the_time_of_day() -> None:
    # Noon of the last two days was three times as busy as one o'clock.
    day = [1.0] * 24
    candles = hourly([*[3.0, 1.0, *day[2:]], *[3.0, 1.0, *day[2:]]])

    schedule = vwap.schedule(Decimal(4), Decimal(50_000), BTCUSDT, frame(slices=2, minutes=120), candles)

    assert [part.quantity for part in schedule] == [Decimal(3), Decimal(1)]


def test_vwap_without_a_history_is_even() -> None:
    schedule = vwap.schedule(Decimal(4), Decimal(50_000), BTCUSDT, frame(slices=4), [])

    assert [part.quantity for part in schedule] == [Decimal(1)] * 4


# -- SMART -------------------------------------------------------------------------------------------------------------


def situation(quantity: object, **changes: Any) -> Situation:
    usual = Situation(
        side=Side.BUY,
        quantity=Decimal(str(quantity)),
        quote=book(),
        tolerance_pct=Decimal("0.5"),
        urgency=Urgency.NORMAL,
        volatility_pct=Decimal("0.05"),
    )
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("chosen_for", "strategy"),
    [
        (situation("0.1"), Strategy.MARKET),  # half a percent of the depth
        (situation("0.1", quote=None), Strategy.MARKET),
        (situation("0.1", quote=book("49800", "50200")), Strategy.LIMIT),  # a spread wider than what is tolerated
        (situation("0.1", quote=book("49800", "50200"), urgency=Urgency.HIGH), Strategy.MARKET),
        (situation("0.1", excess_pct=Decimal("0.4")), Strategy.LIMIT),  # the book promised too much lately
        (situation(10), Strategy.TWAP),  # half of the depth
        (situation(60, knows_the_day=True), Strategy.VWAP),
    ],
)
def test_smart_chooses_by_size_spread_and_experience(chosen_for: Situation, strategy: Strategy) -> None:
    assert smart.choose(chosen_for).strategy is strategy


def test_smart_cuts_more_slices_of_more_and_sends_them_faster_in_a_wild_market() -> None:
    small, large = smart.choose(situation(4)), smart.choose(situation(16))
    wild = smart.choose(situation(16, volatility_pct=Decimal("0.6")))
    hurried = smart.choose(situation(16, urgency=Urgency.HIGH))

    assert small.slices < large.slices
    assert wild.pause < large.pause
    assert hurried.pause < large.pause
    assert hurried.slices < large.slices


def test_smart_tells_the_numbers_behind_its_choice() -> None:
    told = smart.choose(situation(10, excess_pct=Decimal("0.01"))).explanation

    for part in ("50.0 % of the depth", "spread 0.0002 %", "0.050 % a minute", "+0.0100 %", "NORMAL", "6 slices"):
        assert part in told


def test_measured_slippage_is_remembered_and_forgotten() -> None:
    memory = remembered(None, "BTCUSDT", Decimal("0.3"), T0)

    assert memory.excess_pct(T0) == Decimal("0.15")  # one measurement against the usual
    assert memory.excess_pct(T0 + HALF_LIFE) == Decimal("0.1")
    assert memory.excess_pct(T0 + HALF_LIFE * 20) == pytest.approx(Decimal(0), abs=Decimal("0.001"))
    for _ in range(20):
        memory = remembered(memory, "BTCUSDT", Decimal("0.3"), T0)
    assert memory.excess_pct(T0) == pytest.approx(Decimal("0.3"), abs=Decimal("0.02"))
