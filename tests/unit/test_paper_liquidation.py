"""Margin: Binance's liquidation formula, margin calls, liquidations, deleveraging and settlement."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.contracts import build_brackets, contract_for
from infrastructure.paper_exchange.margin import bankruptcy_price, liquidation_price
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.modes import MarginType, PositionSide, SymbolStatus
from infrastructure.paper_exchange.records import AlgoStatus, IncomeType
from shared.trading.orders import OrderStatus, Side
from tests.support.markets import BTC, Prices, after, engine_on, flat, limit, market, stop
from tests.support.refusals import refused

FLAT_RATE = replace(contract_for(BTC, 50_000.0), brackets=build_brackets([(10**9, 125, "0.004")]))
FALL: list[Prices] = [
    (100_000.0 - 500 * n, 100_000.0 - 500 * n, 99_500.0 - 500 * n, 99_500.0 - 500 * n) for n in range(40)
]
RISE: list[Prices] = [
    (100_000.0 + 500 * n, 100_500.0 + 500 * n, 100_000.0 + 500 * n, 100_500.0 + 500 * n) for n in range(40)
]


@pytest.mark.parametrize(("quantity", "expected"), [("1", "45180.72"), ("-1", "54780.88")])
def test_the_liquidation_price_has_the_published_values(quantity: str, expected: str) -> None:
    price = liquidation_price(FLAT_RATE, Decimal(quantity), Decimal(50_000), Decimal(5_000))
    assert round(price, 2) == Decimal(expected)


def test_a_position_that_nothing_can_liquidate_has_no_price() -> None:
    assert liquidation_price(FLAT_RATE, Decimal(1), Decimal(50_000), Decimal(60_000)) == 0


@pytest.mark.parametrize("quantity", ["0.5", "40", "-3", "-900"])
def test_at_the_liquidation_price_margin_is_down_to_maintenance_whatever_the_bracket(quantity: str) -> None:
    contract, size, entry = contract_for(BTC, 100_000.0), Decimal(quantity), Decimal(100_000)
    backing = abs(size) * entry / 10
    price = liquidation_price(contract, size, entry, backing)
    left = backing + (price - entry) * size
    assert abs(left - contract.maintenance_margin(abs(size) * price)) < Decimal("0.0001")


@pytest.mark.parametrize("quantity", ["0.3", "-0.3"])
def test_at_the_bankruptcy_price_nothing_is_owed(quantity: str) -> None:
    size, tick = Decimal(quantity), Decimal("0.1")
    price = bankruptcy_price(size, Decimal(100_000), Decimal(777), tick)
    left = 777 + (price - 100_000) * size
    assert 0 <= left < tick


def doomed(prices: list[Prices], side: Side, *, margin_type: MarginType = MarginType.CROSSED) -> MatchingEngine:
    engine = engine_on(prices, wallet="1000", volume=1000.0)
    if margin_type is MarginType.ISOLATED:
        engine.set_margin_type(BTC, margin_type)
    engine.place_order(market(side, "0.15"))
    return engine


@pytest.mark.parametrize("margin_type", list(MarginType))
@pytest.mark.parametrize(("prices", "side"), [(FALL, Side.BUY), (RISE, Side.SELL)])
def test_a_position_is_liquidated_where_its_record_said(
    prices: list[Prices], side: Side, margin_type: MarginType
) -> None:
    engine = doomed(prices, side, margin_type=margin_type)
    told = engine.position(BTC).liquidation_price
    engine.advance_to(after(39))
    (order,) = engine.force_orders()
    assert order.client_order_id.startswith("autoclose-")
    assert (order.side, order.status, order.executed) == (side.opposite, OrderStatus.FILLED, Decimal("0.15"))
    assert abs(order.average_price / told - 1) < Decimal("0.005")
    assert engine.position(BTC).quantity == 0
    assert 0 <= engine.account().wallet < 1000
    assert engine.account().cross_wallet == engine.account().wallet


def test_a_liquidation_tells_the_whole_story() -> None:
    engine = doomed(FALL, Side.BUY)
    resting = engine.place_order(limit(Side.BUY, "0.01", "91000"))
    guard = engine.place_algo(stop(Side.SELL, "0.15", "90000", reduce_only=True))
    engine.take_events()
    engine.advance_to(after(15))
    events = [event for event in engine.take_events() if event["e"] != "TRADE_LITE"]
    kinds = [event["o"]["x"] if "o" in event else event.get("a", {}).get("m", event["e"]) for event in events]
    assert kinds[:3] == ["MARGIN_CALL", "CANCELED", "NEW"], "orders go first"
    assert kinds[3] == "ORDER"
    assert set(kinds[4:-1]) == {"CALCULATED"}
    assert kinds[-1] == "INSURANCE_CLEAR"
    assert engine.order(BTC, order_id=resting.order_id).status is OrderStatus.CANCELED
    assert engine.algo(algo_id=guard.algo_id).status is AlgoStatus.NEW, "conditions hang on; their trigger is refused"
    call = events[0]
    assert set(call) == {"e", "E", "cw", "p"}
    assert set(call["p"][0]) == {"s", "ps", "pa", "mt", "iw", "mp", "up", "mm"}
    forced = next(event["o"] for event in events if "o" in event and event["o"]["x"] == "CALCULATED")
    assert "n" not in forced, "no commission"


def test_the_clearance_fee_comes_out_of_what_is_left() -> None:
    engine = doomed(FALL, Side.BUY)
    engine.advance_to(after(39))
    (fee,) = (each.amount for each in engine.incomes() if each.type is IncomeType.INSURANCE_CLEAR)
    (order,) = engine.force_orders()
    assert fee < 0
    assert -fee <= order.quote * engine.contract(BTC).liquidation_fee
    assert engine.account().wallet == sum((each.amount for each in engine.incomes()), Decimal(1000))


def test_a_gap_leaves_nothing_but_owes_nothing() -> None:
    engine = doomed([*flat(100_000.0, 2), *flat(70_000.0, 3)], Side.BUY)
    engine.advance_to(after(4))
    assert engine.position(BTC).quantity == 0
    assert 0 <= engine.account().wallet < Decimal("0.02"), "the insurance fund bears what the wallet cannot"


def test_an_isolated_loss_spares_the_rest_of_the_wallet() -> None:
    engine = engine_on([*flat(100_000.0, 2), *flat(70_000.0, 3)], wallet="5000")
    engine.set_margin_type(BTC, MarginType.ISOLATED)
    engine.place_order(market(Side.BUY, "0.15"))
    spared = engine.account().cross_wallet
    engine.advance_to(after(4))
    assert engine.position(BTC).quantity == 0
    assert 0 <= engine.account().wallet - spared < Decimal("0.02")


@pytest.mark.parametrize("cuts", [1, 97])
def test_one_margin_call_per_fall_however_time_is_cut(cuts: int) -> None:
    near = [(100_000.0 - 500 * n, 100_000.0 - 500 * n, 99_500.0 - 500 * n, 99_500.0 - 500 * n) for n in range(12)]
    engine = doomed([*near, *flat(93_800.0, 5)], Side.BUY)
    for cut in range(1, cuts + 1):
        engine.advance_to(after(17 * cut / cuts))
    assert [event["e"] for event in engine.take_events()].count("MARGIN_CALL") == 1
    assert engine.force_orders() == []


def test_a_liquidation_on_demand() -> None:
    engine = doomed(flat(100_000.0, 5), Side.SELL)
    order = engine.liquidate(BTC)
    assert order is not None
    assert (order.side, order.executed) == (Side.BUY, Decimal("0.15"))
    assert engine.liquidate(BTC) is None


def test_deleveraging_takes_a_share_at_the_mark_price() -> None:
    engine = doomed(flat(100_000.0, 5), Side.BUY)
    order = engine.deleverage(BTC, share=Decimal("0.4"))
    assert order is not None
    assert (order.client_order_id, order.executed) == ("adl_autoclose", Decimal("0.06"))
    assert order.average_price == engine.quote(BTC).mark
    assert engine.position(BTC).quantity == Decimal("0.09")
    rest = engine.deleverage(BTC)
    assert rest is not None
    assert engine.deleverage(BTC) is None
    assert engine.fills(BTC)[-1].fill.commission == 0


def test_delisting_settles_and_closes() -> None:
    engine = doomed(flat(100_000.0, 5), Side.BUY)
    order = engine.place_order(limit(Side.BUY, "0.01", "96000"))
    guard = engine.place_algo(stop(Side.SELL, "0.15", "90000", reduce_only=True))
    (settled,) = engine.delist(BTC)
    assert settled.client_order_id.startswith("settlement_autoclose-")
    assert settled.average_price == 100_000
    assert engine.position(BTC).quantity == 0
    assert engine.order(BTC, order_id=order.order_id).status is OrderStatus.CANCELED
    assert engine.algo(algo_id=guard.algo_id).status is AlgoStatus.EXPIRED
    with refused(-4141):
        engine.place_order(market(Side.BUY, "0.1"))


def test_a_symbol_that_is_being_delisted_takes_only_exits() -> None:
    engine = doomed(flat(100_000.0, 5), Side.BUY)
    engine.replace_contract(replace(engine.contract(BTC), status=SymbolStatus.SETTLING))
    with refused(-4140):
        engine.place_order(market(Side.BUY, "0.01"))
    assert engine.place_order(market(Side.SELL, "0.15", reduce_only=True)).status is OrderStatus.FILLED


def test_a_new_price_grid_does_not_move_the_market() -> None:
    engine = engine_on(flat(100_000.0, 5))
    contract = engine.contract(BTC)
    coarse = replace(contract.instrument, tick_size=Decimal("0.5"))
    engine.replace_contract(replace(contract, instrument=coarse))
    assert engine.quote(BTC).last == 100_000
    with refused(-4014):
        engine.place_order(limit(Side.BUY, "0.01", "99000.1"))


def test_each_hedge_mode_position_is_liquidated_on_its_own_when_isolated() -> None:
    engine = engine_on(FALL, wallet="5000", volume=1000.0)
    engine.set_position_mode(is_hedged=True)
    engine.set_margin_type(BTC, MarginType.ISOLATED)
    engine.place_order(market(Side.BUY, "0.15", position_side=PositionSide.LONG))
    engine.place_order(market(Side.SELL, "0.15", position_side=PositionSide.SHORT))
    engine.advance_to(after(39))
    assert [each.quantity for each in engine.positions(BTC)] == [0, Decimal("-0.15")]
    (order,) = engine.force_orders()
    assert order.position_side is PositionSide.LONG
