"""Laws of money and positions, on random numbers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from shared.trading.money import is_on_step, round_down, round_price, to_decimal
from shared.trading.orders import ORDER_STATES, OrderStatus, Side
from shared.trading.policy import Fraction, to_fraction, to_percent
from shared.trading.positions import Fill, NetPosition, PositionChange, apply_fill

STEPS = st.sampled_from(
    [Decimal(step) for step in ("0.00001", "0.001", "0.003", "0.05", "0.1", "0.25", "1", "5", "10")]
)
#: As many digits as a division can leave.
LONG = st.integers(1, 10**28 - 1).map(lambda digits: Decimal(digits).scaleb(-20))

PRICES = st.decimals("0.01", "100000", places=2)
QUANTITIES = st.decimals("0.001", "50", places=3)
#: Rounding of average entry prices at the 28th digit, summed over a few dozen fills.
ROUNDING = Decimal("1e-14")


@st.composite
def fills(draw: st.DrawFn) -> list[Fill]:
    """Return a sequence of fills of one symbol that opens, grows, shrinks, closes and flips."""
    rows = draw(st.lists(st.tuples(st.sampled_from(Side), PRICES, QUANTITIES), min_size=1, max_size=30))
    return [
        Fill(
            symbol="BTCUSDT",
            trade_id=number,
            client_order_id="",
            exchange_order_id="",
            side=side,
            price=price,
            quantity=quantity,
            commission=Decimal(0),
            realized_pnl=Decimal(0),
            time=datetime(2026, 1, 1, tzinfo=UTC),
        )
        for number, (side, price, quantity) in enumerate(rows)
    ]


def fold(sequence: list[Fill]) -> list[PositionChange]:
    position, changes = NetPosition("BTCUSDT"), []
    for fill in sequence:
        changes.append(apply_fill(position, fill))
        position = changes[-1].after
    return changes


@given(LONG, STEPS)
def test_rounding_down_stays_on_the_grid_and_loses_less_than_a_step(value: Decimal, step: Decimal) -> None:
    rounded = round_down(value, step)

    assert is_on_step(rounded, step)
    assert rounded <= value < rounded + step
    assert round_down(rounded, step) == rounded
    assert round_down(-value, step) == -rounded


@given(LONG, STEPS)
def test_a_price_lies_between_its_two_roundings(price: Decimal, tick: Decimal) -> None:
    below, above = round_price(price, tick, up=False), round_price(price, tick, up=True)

    assert is_on_step(below, tick)
    assert is_on_step(above, tick)
    assert below <= price <= above
    assert above - below == (0 if is_on_step(price, tick) else tick)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_as_a_decimal(value: float) -> None:
    assert float(to_decimal(value)) == value


@given(st.integers(0, 10_000).map(lambda number: number / 10_000))
def test_a_fraction_comes_back_from_percent(fraction: float) -> None:
    assert to_fraction(to_percent(Fraction(fraction))) == fraction


@given(fills(), PRICES)
def test_realised_and_open_profit_are_what_the_cash_says(sequence: list[Fill], mark: Decimal) -> None:
    """Whatever the order of fills: money in minus money out, plus the rest at the mark price."""
    changes = fold(sequence)
    last = changes[-1].after

    cash = sum((-fill.signed_quantity * fill.price for fill in sequence), Decimal(0))
    profit = sum((change.realized_pnl for change in changes), Decimal(0)) + last.unrealized_pnl(mark)

    assert abs(profit - (cash + last.quantity * mark)) < ROUNDING


@given(fills())
def test_the_quantity_is_the_sum_of_the_fills(sequence: list[Fill]) -> None:
    assert fold(sequence)[-1].after.quantity == sum((fill.signed_quantity for fill in sequence), Decimal(0))


@given(fills())
def test_every_fill_is_split_into_what_it_closes_and_what_it_opens(sequence: list[Fill]) -> None:
    for fill, change in zip(sequence, fold(sequence), strict=True):
        assert change.closed_quantity + change.opened_quantity == fill.quantity
        assert 0 <= change.closed_quantity <= abs(change.before.quantity)
        if change.closed_quantity == 0:
            assert change.realized_pnl == 0


@given(fills())
def test_only_opening_moves_the_entry_price_and_only_within_the_prices_paid(sequence: list[Fill]) -> None:
    for fill, change in zip(sequence, fold(sequence), strict=True):
        before, after = change.before, change.after
        if after.is_flat:
            assert after.entry_price == 0
        elif change.opened_quantity == 0:
            assert after.entry_price == before.entry_price
            assert after.side is before.side
        elif before.is_flat or change.closed_quantity > 0:
            assert after.entry_price == fill.price  # a new position, or a flip
            assert after.side is fill.side
        else:
            low, high = sorted((before.entry_price, fill.price))
            assert low - ROUNDING <= after.entry_price <= high + ROUNDING


@given(fills())
def test_buying_and_selling_mirror_each_other(sequence: list[Fill]) -> None:
    mirrored = [
        Fill(
            symbol=fill.symbol,
            trade_id=fill.trade_id,
            client_order_id="",
            exchange_order_id="",
            side=fill.side.opposite,
            price=fill.price,
            quantity=fill.quantity,
            commission=fill.commission,
            realized_pnl=fill.realized_pnl,
            time=fill.time,
        )
        for fill in sequence
    ]

    for change, mirror in zip(fold(sequence), fold(mirrored), strict=True):
        assert mirror.after.quantity == -change.after.quantity
        assert mirror.after.entry_price == change.after.entry_price
        assert mirror.realized_pnl == -change.realized_pnl


@given(st.lists(st.sampled_from(OrderStatus), max_size=40))
def test_an_order_ends_at_most_once_whatever_is_reported(reports: list[OrderStatus]) -> None:
    state, ends = OrderStatus.INITIALIZED, []
    for report in reports:
        if ORDER_STATES.allows(state, report):
            was_terminal = state.is_terminal
            state = ORDER_STATES.next_state(state, report)
            assert state is report
            if was_terminal:
                assert state is OrderStatus.FILLED
            if state.is_terminal:
                ends.append(state)

    assert ends in ([], [OrderStatus.CANCELED, OrderStatus.FILLED]) or len(ends) == 1
