"""Positions: what only reduces, hedge mode, isolated margin, leverage, transfers, and their refusals."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.margin import liquidation_price
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.modes import ExpiryReason, MarginType, PositionSide
from infrastructure.paper_exchange.records import IncomeType, OrderRequest, TimeInForce
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from shared.trading.orders import OrderStatus, OrderType, Side
from tests.support.markets import BTC, START, after, engine_on, flat, limit, market, stop
from tests.support.refusals import refused

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT


def hedged(wallet: str = "10000") -> MatchingEngine:
    engine = engine_on(flat(100_000.0, 5), wallet=wallet)
    engine.set_position_mode(is_hedged=True)
    return engine


def isolated(wallet: str = "10000") -> MatchingEngine:
    engine = engine_on(flat(100_000.0, 5), wallet=wallet)
    engine.set_margin_type(BTC, MarginType.ISOLATED)
    return engine


# -- what only reduces ---------------------------------------------------------------------------------------------


def test_resting_exits_may_not_add_up_to_more_than_the_position() -> None:
    engine = engine_on(flat(100_000.0, 5))
    engine.place_order(market(Side.BUY, "0.1"))
    engine.place_order(limit(Side.SELL, "0.06", "101000", reduce_only=True))
    with refused(-4118):
        engine.place_order(limit(Side.SELL, "0.05", "101000", reduce_only=True))
    engine.place_order(limit(Side.SELL, "0.04", "101000", reduce_only=True))
    assert engine.place_order(market(Side.SELL, "0.1", reduce_only=True)).executed == Decimal("0.1"), "exits now win"


def test_a_resting_exit_fills_no_more_than_what_is_left() -> None:
    engine = engine_on([*flat(100_000.0, 1), (100_000.0, 101_500.0, 100_000.0, 101_500.0), *flat(101_500.0, 2)])
    engine.place_order(market(Side.BUY, "0.1"))
    exit_order = engine.place_order(limit(Side.SELL, "0.1", "101000", reduce_only=True))
    engine.place_order(market(Side.SELL, "0.04"))
    engine.advance_to(after(3))
    ended = engine.order(BTC, order_id=exit_order.order_id)
    assert (ended.status, ended.executed) == (OrderStatus.EXPIRED, Decimal("0.06"))
    assert engine.position(BTC).quantity == 0


def test_resting_exits_expire_when_the_position_goes() -> None:
    engine = engine_on(flat(100_000.0, 5))
    engine.place_order(market(Side.BUY, "0.1"))
    exit_order = engine.place_order(limit(Side.SELL, "0.1", "101000", reduce_only=True))
    entry = engine.place_order(limit(Side.SELL, "0.1", "101000"))
    engine.place_order(market(Side.SELL, "0.1"))
    expired = engine.order(BTC, order_id=exit_order.order_id)
    assert (expired.status, expired.expiry_reason) == (OrderStatus.EXPIRED, ExpiryReason.NOTHING_TO_REDUCE)
    assert engine.open_orders(BTC) == [entry]


# -- hedge mode ----------------------------------------------------------------------------------------------------


def test_both_positions_live_side_by_side() -> None:
    engine = hedged()
    engine.place_order(market(Side.BUY, "0.1", position_side=LONG))
    engine.place_order(market(Side.SELL, "0.04", position_side=SHORT))
    assert [(each.position_side, each.quantity) for each in engine.positions(BTC)] == [
        (LONG, Decimal("0.1")),
        (SHORT, Decimal("-0.04")),
    ]
    engine.place_order(market(Side.SELL, "0.1", position_side=LONG))
    assert [each.quantity for each in engine.positions(BTC)] == [0, Decimal("-0.04")]
    assert {record.position_side for record in engine.fills(BTC)} == {LONG, SHORT}
    assert engine.fills(BTC)[-1].fill.realized_pnl < 0, "bought at the ask, sold at the bid"


def test_a_hedge_mode_order_never_turns_its_position() -> None:
    engine = hedged()
    with refused(-2022):
        engine.place_order(market(Side.SELL, "0.1", position_side=LONG))
    engine.place_order(market(Side.BUY, "0.1", position_side=LONG))
    with refused(-2022):
        engine.place_order(market(Side.SELL, "0.11", position_side=LONG))
    engine.place_order(limit(Side.SELL, "0.06", "101000", position_side=LONG))
    with refused(-2022):
        engine.place_order(limit(Side.SELL, "0.06", "101000", position_side=LONG))


def test_the_position_side_must_suit_the_mode() -> None:
    one_way, hedge = engine_on(flat(100_000.0, 3)), hedged()
    with refused(-4061):
        one_way.place_order(market(Side.BUY, "0.1", position_side=LONG))
    with refused(-4061):
        one_way.place_algo(stop(Side.SELL, "0.1", "99000", position_side=LONG))
    with refused(-4061):
        hedge.place_order(market(Side.BUY, "0.1"))
    with refused(-1106):
        hedge.place_order(market(Side.BUY, "0.1", position_side=LONG, reduce_only=True))


def test_the_mode_changes_only_when_nothing_is_open() -> None:
    engine = engine_on(flat(100_000.0, 5))
    with refused(-4059):
        engine.set_position_mode(is_hedged=False)
    engine.place_order(limit(Side.BUY, "0.1", "99000"))
    with refused(-4067):
        engine.set_position_mode(is_hedged=True)
    engine.cancel_open_orders(BTC)
    engine.place_algo(stop(Side.SELL, "0.1", "99000"))
    with refused(-4067):
        engine.set_position_mode(is_hedged=True)
    engine.cancel_open_algos(BTC)
    engine.place_order(market(Side.BUY, "0.1"))
    with refused(-4068):
        engine.set_position_mode(is_hedged=True)
    engine.place_order(market(Side.SELL, "0.1"))
    engine.set_position_mode(is_hedged=True)
    assert engine.is_hedged


def test_a_hedge_mode_stop_closes_its_own_position() -> None:
    engine = engine_on([*flat(100_000.0, 1), (100_000.0, 100_000.0, 98_000.0, 98_000.0), *flat(98_000.0, 2)])
    engine.set_position_mode(is_hedged=True)
    engine.place_order(market(Side.BUY, "0.1", position_side=LONG))
    engine.place_order(market(Side.SELL, "0.1", position_side=SHORT))
    engine.place_algo(stop(Side.SELL, None, "99000", position_side=LONG, close_position=True))
    with refused(-2022):
        engine.place_algo(stop(Side.BUY, None, "101000", position_side=LONG, close_position=True))
    engine.advance_to(after(3))
    assert [each.quantity for each in engine.positions(BTC)] == [0, Decimal("-0.1")]


def test_both_hedge_mode_positions_bind_margin() -> None:
    engine = hedged()
    engine.place_order(market(Side.BUY, "0.1", position_side=LONG))
    engine.place_order(market(Side.SELL, "0.1", position_side=SHORT))
    assert engine.account().initial_margin == Decimal(1000)
    with refused(-2019):
        engine.place_order(market(Side.BUY, "2", position_side=LONG))


def test_going_over_by_force_keeps_what_is_held() -> None:
    engine = engine_on(flat(100_000.0, 5))
    engine.place_order(market(Side.SELL, "0.1"))
    engine.place_order(limit(Side.BUY, "0.1", "99000"))
    engine.force_hedge_mode()
    assert engine.open_orders() == []
    assert [each.quantity for each in engine.positions(BTC)] == [0, Decimal("-0.1")]


# -- isolated margin -----------------------------------------------------------------------------------------------


def test_an_isolated_position_takes_its_margin_along() -> None:
    engine = isolated()
    engine.place_order(market(Side.BUY, "0.1"))
    entry = engine.position(BTC).entry_price
    position, account = engine.position(BTC), engine.account()
    assert position.isolated_wallet == entry * Decimal("0.1") / 20
    assert account.cross_wallet == account.wallet - position.isolated_wallet
    engine.place_order(market(Side.SELL, "0.04", reduce_only=True))
    assert engine.position(BTC).isolated_wallet == position.isolated_wallet * Decimal("0.6")
    engine.place_order(market(Side.SELL, "0.06", reduce_only=True))
    assert engine.position(BTC).isolated_wallet == 0
    assert engine.account().cross_wallet == engine.account().wallet


def test_margin_can_be_added_and_taken_back() -> None:
    engine = isolated()
    engine.place_order(market(Side.BUY, "0.1"))
    before = engine.position(BTC)
    engine.take_events()
    engine.adjust_margin(BTC, Decimal(300), add=True)
    assert engine.position(BTC).isolated_wallet == before.isolated_wallet + 300
    assert engine.position(BTC).liquidation_price < before.liquidation_price
    (event,) = engine.take_events()
    assert (event["a"]["m"], event["a"]["P"][0]["iw"]) == ("MARGIN_TRANSFER", str(before.isolated_wallet + 300))
    engine.adjust_margin(BTC, Decimal(290), add=False)
    assert [each.amount for each in engine.margin_changes(BTC)] == [300, -290]
    assert engine.account().wallet == sum((each.amount for each in engine.incomes()), Decimal(10_000)), "only moved"


def test_refusals_of_margin_changes() -> None:
    engine = engine_on(flat(100_000.0, 5))
    with refused(-4046):
        engine.set_margin_type(BTC, MarginType.CROSSED)
    with refused(-4049):
        engine.adjust_margin(BTC, Decimal(1), add=True)
    engine.place_order(limit(Side.BUY, "0.1", "99000"))
    with refused(-4047):
        engine.set_margin_type(BTC, MarginType.ISOLATED)
    engine.cancel_open_orders(BTC)
    engine.place_order(market(Side.BUY, "0.1"))
    with refused(-4048):
        engine.set_margin_type(BTC, MarginType.ISOLATED)
    engine.place_order(market(Side.SELL, "0.1"))
    engine.set_margin_type(BTC, MarginType.ISOLATED)
    with refused(-4054):
        engine.adjust_margin(BTC, Decimal(1), add=True)
    engine.place_order(market(Side.BUY, "0.1"))
    for code, amount, add in ((-4055, 0, True), (-4050, 10_000, True), (-4051, 200, False)):
        with refused(code):
            engine.adjust_margin(BTC, Decimal(amount), add=add)
    with refused(-4061):
        engine.adjust_margin(BTC, Decimal(1), add=True, position_side=LONG)


def test_isolated_leverage_only_rises_while_a_position_is_held() -> None:
    engine = isolated()
    engine.set_leverage(BTC, 10)
    engine.place_order(market(Side.BUY, "0.1"))
    with refused(-4161):
        engine.set_leverage(BTC, 9)
    engine.take_events()
    engine.set_leverage(BTC, 25)
    assert [event["e"] for event in engine.take_events()] == ["ACCOUNT_CONFIG_UPDATE"]
    assert engine.leverage(BTC) == 25


def test_lower_leverage_needs_the_margin_for_it() -> None:
    engine = engine_on(flat(100_000.0, 5), wallet="1000")
    engine.place_order(market(Side.BUY, "0.1"))
    with refused(-2028):
        engine.set_leverage(BTC, 5)
    assert engine.leverage(BTC) == 20


# -- deposits and withdrawals --------------------------------------------------------------------------------------


def test_deposits_and_withdrawals_are_incomes_and_events() -> None:
    engine = engine_on(flat(100_000.0, 5))
    engine.deposit(Decimal(500))
    engine.withdraw(Decimal(200))
    assert engine.account().wallet == 10_300
    assert [(each.type, each.amount) for each in engine.incomes()] == [
        (IncomeType.TRANSFER, Decimal(500)),
        (IncomeType.TRANSFER, Decimal(-200)),
    ]
    told = [(event["a"]["m"], event["a"]["B"][0]["bc"]) for event in engine.take_events()]
    assert told == [("DEPOSIT", "500"), ("WITHDRAW", "-200")]
    engine.place_order(market(Side.BUY, "0.5"))
    with refused(-2018):
        engine.withdraw(Decimal(8000))
    with refused(-4055):
        engine.deposit(Decimal(0))


# -- what the records tell -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", list(Side))
def test_the_break_even_price_earns_the_fees_back(side: Side) -> None:
    engine = engine_on(flat(100_000.0, 5))
    engine.place_order(market(side, "0.1"))
    position, fee = engine.position(BTC), engine.fills(BTC)[0].fill.commission
    assert (position.break_even_price - position.entry_price) * position.quantity == fee


def test_open_orders_show_in_the_position() -> None:
    engine = engine_on(flat(100_000.0, 5))
    engine.place_order(limit(Side.BUY, "0.1", "99000", TimeInForce.GTX))
    engine.place_order(limit(Side.SELL, "0.2", "101000"))
    position = engine.position(BTC)
    assert (position.bid_notional, position.ask_notional) == (Decimal(9_900), Decimal(20_200))


def test_an_isolated_loss_beyond_its_share_is_borne_by_what_stays_isolated() -> None:
    engine = engine_on([(100_000.0, 100_000.0, 92_000.0, 100_000.0), *flat(100_000.0, 2)])
    engine.replace_contract(replace(engine.contract(BTC), multiplier_down=Decimal("0.5")))
    engine.set_margin_type(BTC, MarginType.ISOLATED)
    engine.place_order(market(Side.BUY, "0.1"))
    cross = engine.account().cross_wallet
    waiting = engine.place_algo(stop(Side.SELL, "0.05", "93000", reduce_only=True))
    engine.advance_to(after(1))
    assert engine.algo(algo_id=waiting.algo_id).actual_quantity == Decimal("0.05")
    sold = engine.fills(BTC)[-1].fill
    assert sold.realized_pnl < -340, "more than the 250 that closing half of it frees"
    assert engine.account().cross_wallet == cross - sum(
        record.fill.commission for record in engine.fills(BTC) if record.fill.side is Side.SELL
    )
    assert engine.position(BTC).isolated_wallet < 165


def test_what_is_isolated_does_not_stand_behind_cross_positions() -> None:
    engine = MatchingEngine(SyntheticCandleSource(3, [BTC, "SOLUSDT"], "1m"), start=START, wallet=Decimal(2_000))
    engine.set_margin_type(BTC, MarginType.ISOLATED)
    btc = engine.quote(BTC).last
    engine.place_order(market(Side.BUY, str(round(Decimal(20_000) / btc, 3))))
    sol = engine.quote("SOLUSDT").last
    engine.place_order(OrderRequest("SOLUSDT", Side.BUY, OrderType.MARKET, round(Decimal(10_000) / sol, 2)))
    held, cross = engine.position("SOLUSDT"), engine.account().cross_wallet
    assert cross < 1_100
    expected = liquidation_price(engine.contract("SOLUSDT"), held.quantity, held.entry_price, cross)
    assert abs(held.liquidation_price - expected) < Decimal("0.00001")
