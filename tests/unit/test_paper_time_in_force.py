"""How long orders live: GTD, IOC, FOK, post-only, the limits on how many there may be, and changes on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.modes import ExpiryReason, SelfTradePrevention
from infrastructure.paper_exchange.records import OrderChange, OrderRecord, TimeInForce
from shared.errors import OrderRejectedError
from shared.trading.orders import OrderStatus, Side
from tests.support.markets import BTC, START, after, engine_on, flat, limit, market, stop
from tests.support.refusals import refused

GTD = TimeInForce.GTD


def change(order: OrderRecord, quantity: str, price: str) -> OrderChange:
    return OrderChange(BTC, Decimal(quantity), Decimal(price), order_id=order.order_id)


def executions(engine: MatchingEngine) -> list[tuple[str, str]]:
    """Return execution and status of every ORDER_TRADE_UPDATE since the last look."""
    events = engine.take_events()
    return [(event["o"]["x"], event["o"]["X"]) for event in events if event["e"] == "ORDER_TRADE_UPDATE"]


# -- good till date ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [1, 7])
def test_a_gtd_order_expires_at_its_own_moment_however_time_is_cut(cuts: int) -> None:
    engine = engine_on(flat(100_000.0, 30))
    date = after(11) + timedelta(seconds=3.5)
    order = engine.place_order(limit(Side.BUY, "0.1", "99000", GTD, good_till=date))
    for cut in range(1, cuts + 1):
        engine.advance_to(after(20 * cut / cuts))
    expired = engine.order(BTC, order_id=order.order_id)
    assert (expired.status, expired.updated_at) == (OrderStatus.EXPIRED, date)


def test_a_gtd_order_fills_until_its_date_and_not_after_it() -> None:
    engine = engine_on([*flat(100_000.0, 12), (100_000.0, 100_000.0, 98_000.0, 98_000.0), *flat(98_000.0, 3)])
    early = engine.place_order(limit(Side.BUY, "0.1", "99000", GTD, good_till=after(11)))
    late = engine.place_order(limit(Side.BUY, "0.1", "99000", GTD, good_till=after(14)))
    engine.advance_to(after(15))
    assert engine.order(BTC, order_id=early.order_id).status is OrderStatus.EXPIRED
    assert engine.order(BTC, order_id=late.order_id).status is OrderStatus.FILLED


def test_a_gtd_order_expires_although_the_candles_have_ended() -> None:
    engine = engine_on(flat(100_000.0, 2))
    order = engine.place_order(limit(Side.BUY, "0.1", "99000", GTD, good_till=after(15)))
    engine.advance_to(after(16))
    assert engine.order(BTC, order_id=order.order_id).status is OrderStatus.EXPIRED


def test_the_date_must_be_ten_minutes_away_and_belongs_to_gtd_only() -> None:
    engine = engine_on(flat(100_000.0, 3))
    with refused(-5040):
        engine.place_order(limit(Side.BUY, "0.1", "99000", GTD, good_till=START + timedelta(seconds=600)))
    with refused(-1102):
        engine.place_order(limit(Side.BUY, "0.1", "99000", GTD))
    with refused(-1106):
        engine.place_order(limit(Side.BUY, "0.1", "99000", good_till=after(60)))
    with refused(-1115):
        engine.place_order(limit(Side.BUY, "0.1", "99000", TimeInForce.GTE_GTC))


# -- what cannot rest ----------------------------------------------------------------------------------------------


def test_the_rest_of_an_ioc_and_of_a_market_order_expires_with_its_reason() -> None:
    engine = engine_on(flat(100_000.0, 3), volume=1.0, wallet="1000000000")
    by_time = engine.place_order(limit(Side.BUY, "100", "100050", TimeInForce.IOC))
    by_market = engine.place_order(market(Side.SELL, "100"))
    assert [order.expiry_reason for order in (by_time, by_market)] == [ExpiryReason.IOC_REST, ExpiryReason.MARKET_REST]
    assert 0 < by_time.executed < 100


def test_an_ioc_that_meets_nothing_expires_without_a_fill() -> None:
    engine = engine_on(flat(100_000.0, 3))
    order = engine.place_order(limit(Side.BUY, "0.1", "99000", TimeInForce.IOC))
    assert (order.status, order.executed) == (OrderStatus.EXPIRED, Decimal(0))
    assert executions(engine) == [("NEW", "NEW"), ("EXPIRED", "EXPIRED")]


def test_refused_fok_and_post_only_orders_leave_no_trace() -> None:
    engine = engine_on(flat(100_000.0, 3), volume=1.0, wallet="100000000")
    for code, order in (
        (-5021, limit(Side.BUY, "500", "100100", TimeInForce.FOK)),
        (-5022, limit(Side.BUY, "0.1", "100100", TimeInForce.GTX)),
    ):
        with refused(code):
            engine.place_order(order)
    assert engine.orders(BTC) == []
    assert engine.take_events() == []


# -- how many ------------------------------------------------------------------------------------------------------


def test_open_orders_and_conditional_orders_are_counted_per_symbol() -> None:
    engine = engine_on(flat(100_000.0, 3))
    engine.replace_contract(replace(engine.contract(BTC), max_open_orders=2, max_algo_orders=1))
    for _ in range(2):
        engine.place_order(limit(Side.BUY, "0.01", "99000"))
    with refused(-2025):
        engine.place_order(limit(Side.BUY, "0.01", "99000"))
    assert engine.place_order(market(Side.BUY, "0.01")).status is OrderStatus.FILLED, "what does not rest has room"
    engine.place_algo(stop(Side.SELL, "0.01", "99000"))
    with refused(-4045):
        engine.place_algo(stop(Side.SELL, "0.01", "98000"))


# -- amendments ----------------------------------------------------------------------------------------------------


def test_an_amended_order_keeps_its_id_and_tells_of_the_change() -> None:
    engine = engine_on(flat(100_000.0, 3))
    order = engine.place_order(limit(Side.BUY, "0.1", "99000", client_order_id="mine"))
    engine.take_events()
    amended = engine.amend_order(change(order, "0.2", "98000"))
    assert (amended.order_id, amended.client_order_id) == (order.order_id, "mine")
    assert (amended.quantity, amended.price, amended.status) == (Decimal("0.2"), Decimal(98000), OrderStatus.NEW)
    assert executions(engine) == [("AMENDMENT", "NEW")]
    (noted,) = engine.amendments(BTC, order_id=order.order_id)
    assert (noted.old_price, noted.new_price, noted.old_quantity) == (Decimal(99_000), Decimal(98_000), Decimal("0.1"))


def test_an_amended_order_that_crosses_takes_at_once() -> None:
    engine = engine_on(flat(100_000.0, 3))
    order = engine.place_order(limit(Side.BUY, "0.1", "99000"))
    amended = engine.amend_order(change(order, "0.1", "100100"))
    assert amended.status is OrderStatus.FILLED
    assert amended.average_price < Decimal(100_100), "it pays what is asked, not its limit"
    assert not engine.fills(BTC)[0].is_maker


@pytest.mark.parametrize("is_amended", [False, True])
def test_an_amendment_loses_the_place_in_the_queue(*, is_amended: bool) -> None:
    engine = engine_on(
        [*flat(100_000.0, 1), (100_000.0, 100_000.0, 99_500.0, 99_600.0), *flat(99_600.0, 2)],
        volume=9.0,
        wallet="1000000",
    )
    first = engine.place_order(limit(Side.BUY, "5", "99500"))
    second = engine.place_order(limit(Side.BUY, "5", "99500"))
    if is_amended:
        engine.amend_order(change(first, "5.001", "99500"))
    engine.advance_to(after(3))
    served = {record.order_id for record in engine.fills(BTC)[:1]}
    assert served == {second.order_id if is_amended else first.order_id}


def test_an_amendment_below_what_is_filled_ends_the_order() -> None:
    engine = engine_on(flat(100_000.0, 2) + flat(99_499.0, 3), volume=1.0)
    order = engine.place_order(limit(Side.BUY, "1", "99500"))
    engine.advance_to(after(2))
    partly = engine.order(BTC, order_id=order.order_id)
    assert partly.status is OrderStatus.PARTIALLY_FILLED
    ended = engine.amend_order(change(order, str(partly.executed), "99400"))
    assert (ended.status, ended.executed) == (OrderStatus.CANCELED, partly.executed)


def test_a_post_only_order_that_would_take_after_the_change_is_cancelled() -> None:
    engine = engine_on(flat(100_000.0, 2))
    order = engine.place_order(limit(Side.BUY, "0.1", "99500", TimeInForce.GTX))
    assert engine.amend_order(change(order, "0.1", "100100")).status is OrderStatus.CANCELED


def test_refusals_of_amendments_change_nothing() -> None:
    engine = engine_on(flat(100_000.0, 3), wallet="1000")
    order = engine.place_order(limit(Side.BUY, "0.1", "99000"))
    before = engine.books()
    for code, wanted in (
        (-5027, change(order, "0.1", "99000")),
        (-4014, change(order, "0.1", "99000.05")),
        (-4003, change(order, "0", "99000")),
        (-2019, change(order, "0.3", "99000")),
        (-4164, change(order, "0.001", "99000")),
        (-1130, replace(change(order, "0.1", "98000"), side=Side.SELL)),
        (-2013, replace(change(order, "0.1", "98000"), order_id=77)),
    ):
        with refused(code):
            engine.amend_order(wanted)
    assert engine.books() == before


# -- several at once -----------------------------------------------------------------------------------------------


def test_a_batch_goes_on_after_a_refusal() -> None:
    engine = engine_on(flat(100_000.0, 3))
    placed = engine.place_orders(
        [market(Side.BUY, "0.01"), limit(Side.BUY, "0.01", "1"), limit(Side.BUY, "0.1", "99000")]
    )
    assert [type(each) for each in placed] == [OrderRecord, OrderRejectedError, OrderRecord]
    resting = engine.open_orders(BTC)[0]
    changed = engine.amend_orders([change(resting, "0.1", "98000"), change(resting, "0.1", "98000")])
    assert [type(each) for each in changed] == [OrderRecord, OrderRejectedError]
    cancelled = engine.cancel_orders(BTC, order_ids=[resting.order_id, 99], client_order_ids=["never"])
    assert [type(each) for each in cancelled] == [OrderRecord, OrderRejectedError, OrderRejectedError]


# -- self-trade prevention -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "maker", "taker_expires"),
    [
        (SelfTradePrevention.NONE, "NEW", False),
        (SelfTradePrevention.EXPIRE_MAKER, "EXPIRED_IN_MATCH", False),
        (SelfTradePrevention.EXPIRE_TAKER, "NEW", True),
        (SelfTradePrevention.EXPIRE_BOTH, "EXPIRED_IN_MATCH", True),
    ],
)
def test_who_gives_way_when_an_order_walks_into_an_own_one(
    mode: SelfTradePrevention, maker: str, *, taker_expires: bool
) -> None:
    engine = engine_on(flat(100_000.0, 3), volume=1.0, wallet="100000000")
    bid = engine.place_order(limit(Side.BUY, "0.01", "99990"))
    taker = engine.place_order(limit(Side.SELL, "50", "99980", self_trade_prevention=mode))
    assert engine.order(BTC, order_id=bid.order_id).status_word == maker
    assert (taker.status_word == "EXPIRED_IN_MATCH") is taker_expires
    if taker_expires:
        assert all(record.fill.price > bid.price for record in engine.fills(BTC))
        assert taker.executed > 0
    last = engine.take_events()[-1]["o"]
    assert last["er"] == ("0" if mode is SelfTradePrevention.NONE else "1")


def test_an_order_that_ends_before_it_reaches_an_own_one_leaves_it_alone() -> None:
    engine = engine_on(flat(100_000.0, 3))
    bid = engine.place_order(limit(Side.BUY, "0.01", "99000"))
    engine.place_order(market(Side.SELL, "0.05"))
    assert engine.order(BTC, order_id=bid.order_id).is_open
