"""Stops only ever come closer, never cross the market, and never risk more than one trade may lose."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from hypothesis import assume, given
from hypothesis import strategies as st

from services.exec_risk_service.domain.dynamic_exits import (
    ExitView,
    advised_exits,
    moved_exits,
    with_first_exits,
    with_same_distances,
)
from services.exec_risk_service.domain.orders import EntryPlan
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.price_history import PriceHistory
from services.exec_risk_service.domain.protection import ExitAdvice, ExitRules
from shared.trading.candles import Candle
from shared.trading.positions import NetPosition
from tests.property.test_exec_book import INSTRUMENT
from tests.support.markets import BTC, START

ENTRY = Decimal(50_000)
QUANTITY = Decimal("0.01")


def history(ranges: list[float]) -> PriceHistory:
    """Return candles of 1 h that swing by ``ranges``, fractions of the price."""
    candles, price = [], 50_000.0
    for number, one in enumerate(ranges):
        close = price * (1 + one * (1 if number % 2 else -1))
        candles.append(
            Candle(BTC, "1h", START + timedelta(hours=number), price, max(price, close), min(price, close), close, 1)
        )
        price = close
    return PriceHistory(tuple(candles))


@st.composite
def views(draw: st.DrawFn) -> ExitView:
    swings = draw(st.floats(0.0001, 0.05))
    return ExitView(
        rules=ExitRules(is_trailing=draw(st.booleans())),
        instrument=INSTRUMENT,
        history=history([swings] * draw(st.sampled_from([0, 10, 60]))),
        max_holding=timedelta(hours=48),
        max_loss=draw(st.none() | st.integers(1, 400).map(Decimal)),
        quantity=QUANTITY,
    )


@st.composite
def positions(draw: st.DrawFn) -> Position:
    is_long = draw(st.booleans())
    target = draw(st.none() | st.integers(20, 900).map(lambda n: Decimal(n) / 100))
    return Position(
        position_id="p",
        symbol=BTC,
        origin=Origin.SIGNAL,
        trace_id="t",
        cause_event_id="c",
        is_long=is_long,
        net=NetPosition(BTC, QUANTITY if is_long else -QUANTITY, ENTRY),
        leverage=5,
        opened_at=START,
        opening_event_id="e",
        plan=EntryPlan(draw(st.integers(20, 500).map(lambda n: Decimal(n) / 100)), target),
        opened_event_id="o",
        opened_quantity=QUANTITY,
        opened_value=QUANTITY * ENTRY,
        commission=Decimal("0.25"),
    )


def tightness(position: Position) -> Decimal:
    """Return how close to profit the stop is: more is closer."""
    assert position.stop_price is not None
    return position.stop_price if position.is_long else -position.stop_price


@given(positions(), views())
def test_the_first_stop_is_on_the_losing_side_and_within_what_one_trade_may_lose(
    position: Position, view: ExitView
) -> None:
    assert position.plan is not None
    opened = with_first_exits(position, view)

    assert opened.stop_price is not None
    loss = (ENTRY - opened.stop_price) * (1 if position.is_long else -1) * QUANTITY
    planned = ENTRY * position.plan.stop_loss_pct / 100 * QUANTITY
    assert 0 < loss <= max(planned, view.max_loss or 0)
    assert opened.stop_price % INSTRUMENT.tick_size == 0
    assert (opened.target_price is None) == (position.plan.take_profit_pct is None)
    if opened.target_price is not None:
        assert (opened.target_price > ENTRY) == position.is_long


@given(positions(), views(), st.lists(st.tuples(st.floats(0.9, 1.1), st.integers(0, 24)), max_size=20))
def test_a_stop_never_loosens_and_never_crosses_the_mark(
    position: Position, view: ExitView, walk: list[tuple[float, int]]
) -> None:
    held, at = with_first_exits(position, view), START
    for factor, hours in walk:
        at += timedelta(hours=hours)
        mark = (ENTRY * Decimal(repr(factor))).quantize(Decimal("0.1"))
        held = held.seen(mark)
        moved = moved_exits(held, mark, at, view)

        assert tightness(moved) >= tightness(held)
        if moved.stop_price != held.stop_price:
            assert moved.stop_price is not None
            gap = (mark - moved.stop_price) * (1 if position.is_long else -1)
            assert gap >= mark * view.rules.min_gap_pct / 100
            assert tightness(moved) - tightness(held) >= (held.protection.risk or 0) * view.rules.step_r
            assert not moved.protection.stop_basis.is_first
        if moved.target_price != held.target_price:
            assert moved.target_price is not None
            assert held.target_price is not None
            assert abs(moved.target_price - ENTRY) < abs(held.target_price - ENTRY)
            assert (moved.target_price > mark) == position.is_long
        held = moved


@given(positions(), views(), st.integers(1, 2000), st.floats(0.97, 1.03), st.floats(0.97, 1.03))
def test_advice_never_risks_more_than_one_trade_may_lose(
    position: Position, view: ExitView, percent: int, before: float, now: float
) -> None:
    held = with_first_exits(position, view)
    seen = ENTRY * Decimal(repr(before))
    held = moved_exits(held.seen(seen), seen, START + timedelta(hours=1), view)
    mark = ENTRY * Decimal(repr(now))

    answer = advised_exits(held, ExitAdvice(Decimal(percent) / 100, None, None), mark, view)

    if isinstance(answer, str):
        return
    assert answer.stop_price is not None
    assert (mark > answer.stop_price) == position.is_long
    if tightness(answer) < tightness(held):
        assert held.protection.stop_basis.is_first
        assert view.max_loss is not None
        assert abs(ENTRY - answer.stop_price) * QUANTITY <= view.max_loss


@given(positions(), views(), st.floats(0.98, 1.02))
def test_growth_moves_what_was_never_moved_with_the_entry_price(
    position: Position, view: ExitView, factor: float
) -> None:
    held = with_first_exits(position, view)
    entry = (ENTRY * Decimal(repr(factor))).quantize(Decimal("0.1"))
    assume(entry != ENTRY)

    grown = with_same_distances(replace(held, net=replace(held.net, entry_price=entry)), INSTRUMENT)

    assert grown.stop_price is not None
    assert held.stop_price is not None
    assert abs((grown.stop_price - entry) - (held.stop_price - ENTRY)) <= INSTRUMENT.tick_size
