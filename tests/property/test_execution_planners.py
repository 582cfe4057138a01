"""Whatever the market does, an execution never trades more than its target, off its grid, or after its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from services.exec_risk_service.domain.executions import Slice, Strategy, Urgency
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.strategies import limit, market, smart, twap, vwap
from services.exec_risk_service.domain.strategies.slicing import Frame
from services.exec_risk_service.domain.strategies.smart import Situation
from services.exec_risk_service.domain.strategies.view import Planner, SliceView
from shared.trading.money import is_on_step
from shared.trading.orders import OrderType, Side
from tests.support.planning import BTCUSDT, T0, Sent, book, carry_out, every, view

PLANNERS: dict[Strategy, Planner] = {
    Strategy.MARKET: market.plan,
    Strategy.LIMIT: limit.plan,
    Strategy.TWAP: twap.plan,
    Strategy.VWAP: vwap.plan,
}
PRICE = Decimal(50_000)

lots = st.integers(3, 5_000).map(lambda count: count * BTCUSDT.lot_step)
moves = st.lists(st.integers(-400, 400), min_size=1, max_size=40)


@st.composite
def executions(draw: st.DrawFn) -> tuple[SliceView, Planner]:
    strategy = draw(st.sampled_from(list(PLANNERS)))
    side = draw(st.sampled_from(list(Side)))
    target = draw(lots)
    frame = Frame(
        T0, timedelta(seconds=draw(st.integers(10, 600))), draw(st.integers(1, 20)), draw(st.text(max_size=3))
    )
    schedule: tuple[Slice, ...] = ()
    if strategy is Strategy.TWAP:
        schedule = twap.schedule(target, PRICE, BTCUSDT, frame)
    elif strategy is Strategy.VWAP:
        schedule = vwap.schedule(target, PRICE, BTCUSDT, frame, [])
    start = view(
        side=side,
        target=target,
        guard_price=PRICE * (1 + side.sign * Decimal("0.005")),
        ends_at=T0 + timedelta(seconds=draw(st.integers(1, 900))),
        schedule=schedule,
        urgency=draw(st.sampled_from(list(Urgency))),
        is_reduce_only=draw(st.booleans()),
    )
    return start, PLANNERS[strategy]


def play(start: SliceView, planner: Planner, steps: list[int], share: Decimal) -> tuple[SliceView, list[Sent]]:
    def quote(at: datetime) -> Quote | None:
        number = moments.index(at)
        step = steps[number % len(steps)]
        return None if step == 0 else book(PRICE + step, PRICE + step + 1, size="0.7")

    moments = every(7, 150)
    seen, sent, _ = carry_out(start, planner, moments=moments, quotes=quote, fill_share=lambda _: share)
    return seen, sent


@given(executions(), moves, st.sampled_from([Decimal(0), Decimal("0.3"), Decimal(1)]))
def test_children_keep_to_target_grid_guard_and_end(
    execution: tuple[SliceView, Planner], steps: list[int], share: Decimal
) -> None:
    start, planner = execution

    seen, sent = play(start, planner, steps, share)

    assert sum(one.filled for one in sent) == seen.filled <= start.target
    already = Decimal(0)
    for one in sent:
        assert 0 < one.child.quantity <= start.target - already
        assert is_on_step(one.child.quantity, BTCUSDT.lot_step)
        assert one.at < start.ends_at
        if one.child.price is not None:
            assert (one.child.price - start.guard_price) * start.side.sign <= 0
            assert is_on_step(one.child.price, BTCUSDT.tick_size)
        assert one.child.order_type is OrderType.MARKET or one.child.price is not None
        already += one.filled


@given(executions(), moves)
def test_the_same_market_gives_the_same_children(execution: tuple[SliceView, Planner], steps: list[int]) -> None:
    assert play(*execution, steps, Decimal("0.5")) == play(*execution, steps, Decimal("0.5"))


@given(executions(), st.integers(0, 100))
def test_a_process_that_begins_anew_goes_on_where_the_fills_end(
    execution: tuple[SliceView, Planner], moment: int
) -> None:
    """A planner remembers nothing: what a crash leaves in the journal is all that it needs."""
    start, planner = execution
    moments = every(7, 150)

    whole, _, _ = carry_out(start, planner, moments=moments, quotes=lambda _: book(size=1000))
    first, _, _ = carry_out(start, planner, moments=moments[:moment], quotes=lambda _: book(size=1000))
    second, _, _ = carry_out(
        replace(first, quote=None), planner, moments=moments[moment:], quotes=lambda _: book(size=1000)
    )

    assert second.filled == whole.filled


@given(lots, st.integers(1, 40), st.integers(1, 3600), st.text(max_size=5))
def test_slices_add_up_on_the_grid_in_order_of_time(target: Decimal, slices: int, length: int, seed: str) -> None:
    schedule = twap.schedule(target, PRICE, BTCUSDT, Frame(T0, timedelta(seconds=length), slices, seed))

    assert sum(part.quantity for part in schedule) == target
    assert all(is_on_step(part.quantity, BTCUSDT.lot_step) and part.quantity > 0 for part in schedule)
    times = [part.due for part in schedule]
    assert times == sorted(times)
    assert len(schedule) == 1 or all(part.quantity * PRICE >= BTCUSDT.min_notional for part in schedule)


@given(lots, st.sampled_from(list(Side)), st.sampled_from(list(Urgency)), st.integers(1, 100), st.integers(0, 500))
def test_smart_always_chooses_something_that_can_be_planned(
    target: Decimal, side: Side, urgency: Urgency, size: int, spread: int
) -> None:
    quote = book(PRICE - spread, PRICE + spread + 1, size=size)
    choice = smart.choose(Situation(side, target, quote, Decimal("0.5"), urgency))

    assert choice.strategy in PLANNERS
    assert choice.slices >= 1
    assert (choice.duration > timedelta(0)) == (choice.strategy in (Strategy.TWAP, Strategy.VWAP))
