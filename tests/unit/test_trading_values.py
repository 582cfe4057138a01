"""Money, instruments, candles, orders and policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from shared.errors import IllegalTransitionError, InvalidInputError
from shared.trading.candles import Candle, expected_last_open, missing_open_times
from shared.trading.instruments import Instrument, timeframe_duration, unified_symbol, venue_symbol
from shared.trading.money import is_on_step, round_down, round_price, to_decimal
from shared.trading.orders import ORDER_STATES, OrderStatus, OrderType, Side
from shared.trading.policy import (
    DEFAULT_POLICIES,
    FALLBACK_POLICY_STATE,
    Fraction,
    Percent,
    RiskMode,
    to_fraction,
    to_percent,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


# Money


@pytest.mark.parametrize(
    ("value", "expected"), [(0.1, "0.1"), ("1e-8", "1E-8"), (3, "3"), (Decimal("2.50"), "2.50"), (1e22, "1E+22")]
)
def test_a_float_becomes_the_number_it_is_written_as(value: float | str | Decimal, expected: str) -> None:
    assert str(to_decimal(value)) == expected


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "NaN", "sNaN", "-Infinity", "ten", "", None, Decimal("NaN"), True]
)
def test_what_is_no_finite_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidInputError, match="price must be a"):
        to_decimal(value, name="price")  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("value", "step", "expected"),
    [
        ("1.2399", "0.001", "1.239"),
        ("1.239", "0.001", "1.239"),
        ("-1.2399", "0.001", "-1.239"),
        ("0.0004", "0.001", "0"),
        ("17", "5", "15"),
        # Dividing these first would round the quotient up at its 28th digit, and then the result.
        ("9.999999999999999999999999999", "0.05", "9.95"),
        ("8.999999999999999999999999999", "0.003", "8.997"),
    ],
)
def test_quantities_are_rounded_towards_zero(value: str, step: str, expected: str) -> None:
    assert round_down(Decimal(value), Decimal(step)) == Decimal(expected)


def test_a_rounded_quantity_is_written_with_the_digits_of_its_step() -> None:
    assert str(round_down(Decimal("1.23"), Decimal("0.100"))) == "1.200"


@pytest.mark.parametrize(
    ("price", "up", "expected"),
    [
        ("100.01", True, "100.05"),
        ("100.04", False, "100"),
        ("100.05", True, "100.05"),
        ("100.05", False, "100.05"),
        ("-0.01", True, "0"),
        ("-0.01", False, "-0.05"),
        ("9.999999999999999999999999999", False, "9.95"),
    ],
)
def test_prices_are_rounded_the_way_that_was_asked_for(price: str, up: bool, expected: str) -> None:
    assert round_price(Decimal(price), Decimal("0.05"), up=up) == Decimal(expected)


def test_a_value_is_on_the_grid_or_not() -> None:
    assert is_on_step(Decimal("0.15"), Decimal("0.05"))
    assert not is_on_step(Decimal("0.16"), Decimal("0.05"))


# Instruments


@pytest.mark.parametrize("symbol", ["BTC/USDT:USDT", "BTCUSDT"])
def test_both_forms_of_a_symbol_lead_to_each_other(symbol: str) -> None:
    assert venue_symbol(symbol) == "BTCUSDT"
    assert unified_symbol(symbol) == "BTC/USDT:USDT"
    assert venue_symbol("1000SHIB/USDC:USDC") == "1000SHIBUSDC"


@pytest.mark.parametrize("symbol", ["", "BTC", "btcusdt", "BTC/USDT", "BTC/USDT:USDC", "USDT", "BTCUSDT\n", "BTC USDT"])
def test_what_is_no_symbol_is_refused_by_name(symbol: str) -> None:
    for convert in (venue_symbol, unified_symbol):
        with pytest.raises(InvalidInputError, match="symbol"):
            convert(symbol)


@pytest.mark.parametrize(("timeframe", "seconds"), [("1m", 60), ("15m", 900), ("4h", 14_400), ("1d", 86_400)])
def test_a_timeframe_has_a_length(timeframe: str, seconds: int) -> None:
    assert timeframe_duration(timeframe) == timedelta(seconds=seconds)


@pytest.mark.parametrize("timeframe", ["", "m", "1", "0m", "1w", "1M", "-1m", "1m\n", "١m"])
def test_what_is_no_timeframe_is_refused_by_name(timeframe: str) -> None:
    with pytest.raises(InvalidInputError, match="timeframe"):
        timeframe_duration(timeframe)


BITCOIN = Instrument(
    symbol="BTCUSDT",
    tick_size=Decimal("0.1"),
    lot_step=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_quantity=Decimal(1000),
    max_market_quantity=Decimal("120.0005"),
    min_notional=Decimal(50),
    max_leverage=125,
)


@pytest.mark.parametrize(
    ("notional", "price", "quantity"),
    [
        ("1000", "45000", "0.022"),
        ("49.99", "10000", "0"),  # below the smallest value
        ("60", "90000", "0"),  # below the smallest quantity
        ("100000000", "100", "120"),  # as much as one market order may hold, on the grid
    ],
)
def test_the_quantity_for_an_amount_keeps_every_filter(notional: str, price: str, quantity: str) -> None:
    assert BITCOIN.quantity_for(Decimal(notional), Decimal(price)) == Decimal(quantity)


# Candles


def test_a_candle_is_final_when_the_next_slot_begins() -> None:
    candle = Candle("BTCUSDT", "1h", START, 1.0, 2.0, 0.5, 1.5, 10.0)

    assert candle.close_time == START + timedelta(hours=1)


def test_missing_candles_are_those_strictly_between() -> None:
    minute = timedelta(minutes=1)

    assert missing_open_times(START, START + 3 * minute, "1m") == [START + minute, START + 2 * minute]
    assert missing_open_times(START, START + minute, "1m") == []
    assert missing_open_times(START, START, "1m") == []


@pytest.mark.parametrize(("seconds", "minutes_ago"), [(0, 1), (1, 1), (59.999, 1), (60, 0)])
def test_the_newest_closed_candle_ended_at_or_before_now(seconds: float, minutes_ago: int) -> None:
    assert expected_last_open(START + timedelta(seconds=seconds), "1m") == START - timedelta(minutes=minutes_ago)


# Orders


def test_sides_know_their_opposite_and_sign() -> None:
    assert (Side.BUY.opposite, Side.SELL.opposite) == (Side.SELL, Side.BUY)
    assert (Side.BUY.sign, Side.SELL.sign) == (1, -1)


def test_only_conditional_orders_are_algo_orders() -> None:
    assert {kind for kind in OrderType if not kind.is_algo} == {OrderType.MARKET, OrderType.LIMIT}


TERMINAL = [OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED, OrderStatus.ABSENT]


def test_terminal_states_are_these() -> None:
    assert [status for status in OrderStatus if status.is_terminal] == TERMINAL


@pytest.mark.parametrize("status", TERMINAL)
def test_a_terminal_state_is_left_only_for_the_fill_that_crossed_a_cancel(status: OrderStatus) -> None:
    left_for = {report for report in OrderStatus if ORDER_STATES.allows(status, report)}

    assert left_for == ({OrderStatus.FILLED} if status is OrderStatus.CANCELED else set())


@pytest.mark.parametrize(
    "path",
    [
        ["SUBMITTED", "NEW", "PARTIALLY_FILLED", "PARTIALLY_FILLED", "FILLED"],
        ["SUBMITTED", "FILLED"],
        ["SUBMITTED", "UNKNOWN", "NEW", "CANCELED", "FILLED"],
        ["SUBMITTED", "UNKNOWN", "ABSENT"],
        ["SUBMITTED", "NEW", "TRIGGERED", "FILLED"],
        ["SUBMITTED", "REJECTED"],
        ["ABSENT"],
        ["UNKNOWN", "PARTIALLY_FILLED", "EXPIRED"],
    ],
)
def test_the_lives_that_orders_lead_are_legal(path: list[str]) -> None:
    state = OrderStatus.INITIALIZED
    for report in map(OrderStatus, path):
        state = ORDER_STATES.next_state(state, report)
        assert state is report


@pytest.mark.parametrize(
    ("state", "report"),
    [
        ("PARTIALLY_FILLED", "NEW"),
        ("FILLED", "CANCELED"),
        ("NEW", "ABSENT"),
        ("NEW", "SUBMITTED"),
        ("TRIGGERED", "NEW"),
    ],
)
def test_an_order_never_goes_back(state: str, report: str) -> None:
    with pytest.raises(IllegalTransitionError):
        ORDER_STATES.next_state(OrderStatus(state), OrderStatus(report))


@pytest.mark.parametrize("state", [status for status in OrderStatus if not status.is_terminal])
def test_every_state_that_is_not_terminal_can_still_end(state: OrderStatus) -> None:
    assert all(ORDER_STATES.allows(state, end) for end in (OrderStatus.FILLED, OrderStatus.CANCELED))


# Policy


@pytest.mark.parametrize(("fraction", "percent"), [(0.05, 5.0), (0.0075, 0.75), (0.07, 7.0), (1.0, 100.0), (0.0, 0.0)])
def test_fraction_and_percent_are_exactly_a_hundred_apart(fraction: float, percent: float) -> None:
    assert to_percent(Fraction(fraction)) == percent
    assert to_fraction(Percent(percent)) == fraction


def test_the_default_policies_are_those_of_the_specification() -> None:
    rows = {
        mode: (
            policy.max_leverage,
            policy.max_risk_pct_per_trade,
            policy.max_daily_drawdown,
            policy.max_positions,
            policy.global_min_confidence,
            policy.scaling_factor,
            policy.position_size_cap,
            policy.enable_pal,
        )
        for mode, policy in DEFAULT_POLICIES.items()
    }

    assert rows == {
        RiskMode.NORMAL: (20, 0.01, 0.05, 30, 0.50, 1.0, 1000, True),
        RiskMode.DEFENSIVE: (3, 0.0075, 0.03, 10, 0.60, 0.5, 500, False),
        RiskMode.AGGRESSIVE_SMALL_ACCOUNT: (7, 0.03, 0.06, 15, 0.45, 1.5, 300, True),
    }


def test_when_nothing_is_known_the_careful_mode_holds() -> None:
    assert FALLBACK_POLICY_STATE.mode is RiskMode.DEFENSIVE
    assert FALLBACK_POLICY_STATE.stale
