"""Every filter, refused with its own code and Binance's text."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from infrastructure.paper_exchange.contracts import contract_for
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import AlgoRequest, OrderRequest
from infrastructure.paper_exchange.refusals import REFUSALS, refusal
from shared.errors import OrderRejectedError
from shared.trading.orders import OrderType, Side
from tests.support.markets import BTC, START, WrittenSource, engine_on, flat, limit, market, stop

BUY, SELL = Side.BUY, Side.SELL


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (limit(BUY, "0.1", "0"), -4001, "Price less than 0."),
        (limit(BUY, "0.1", "-5"), -4001, "Price less than 0."),
        (limit(BUY, "0.1", "99000.05"), -4014, "Price not increased by tick size."),
        (limit(BUY, "0.1", "99000.055"), -1111, "Precision is over the maximum defined for this asset."),
        (limit(BUY, "0.1", "0.05"), -4013, "Price less than min price."),
        (limit(BUY, "0.1", "5000000.1"), -4002, "Price greater than max price."),
        (limit(BUY, "0.1", "105001"), -4016, "Price is higher than mark price multiplier cap."),
        (limit(SELL, "0.1", "94999"), -4024, "Price is lower than mark price multiplier floor."),
        (market(BUY, "0"), -4003, "Quantity less than zero."),
        (market(BUY, "-1"), -4003, "Quantity less than zero."),
        (market(BUY, "0.0001"), -1111, "Precision is over the maximum defined for this asset."),
        (market(BUY, "120.001"), -4005, "Quantity greater than max quantity."),
        (limit(BUY, "1000.001", "99000"), -4005, "Quantity greater than max quantity."),
        (limit(BUY, "0.001", "99000"), -4164, "Order's notional must be no smaller than 100 (unless"),
        (market(BUY, "0.1", client_order_id="no spaces"), -4015, "Client order id is not valid."),
        (market(BUY, "0.1", client_order_id="x" * 37), -4015, "Client order id is not valid."),
        (market(BUY, "0.1", price=Decimal(1)), -1106, "Parameter 'price' sent when not required."),
        (OrderRequest(BTC, BUY, OrderType.LIMIT, Decimal("0.1")), -1102, "Mandatory parameter 'price' was not sent"),
        (replace(market(BUY, "0.1"), type=OrderType.STOP_MARKET), -4120, "Order type not supported"),
        (market(SELL, "0.1", reduce_only=True), -2022, "ReduceOnly Order is rejected."),
        (market(BUY, "3"), -2019, "Margin is insufficient."),
    ],
)  # fmt: skip
def test_orders_are_refused_with_the_code_of_the_filter(request_: OrderRequest, code: int, text: str) -> None:
    engine = engine_on(flat(100_000.0, 3))
    before = engine.books()
    with pytest.raises(OrderRejectedError, match=re.escape(text)) as caught:
        engine.place_order(request_)
    assert (caught.value.code, caught.value.http_status) == (code, 400)
    assert engine.books() == before, "a refused order leaves no trace"
    assert not engine.take_events()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (stop(SELL, "0.1", "0"), -4006),
        (stop(SELL, "0.1", "99000.05"), -4014),
        (stop(SELL, "0.1", "99000.123"), -1111),
        (stop(BUY, "0.1", "5000001"), -4007),
        (stop(SELL, "0.1", "100100"), -2021),
        (stop(SELL, "0.0001", "99000"), -1111),
        (stop(SELL, "0.1", "99000", client_algo_id="?"), -4015),
        (replace(stop(SELL, "0.1", "99000"), type=OrderType.MARKET), -1116),
    ],
)
def test_conditional_orders_are_refused_with_the_code_of_the_filter(request_: AlgoRequest, code: int) -> None:
    engine = engine_on(flat(100_000.0, 3))
    with pytest.raises(OrderRejectedError) as caught:
        engine.place_algo(request_)
    assert caught.value.code == code
    assert not engine.books().algo_orders


def test_a_quantity_off_a_coarse_step_and_a_market_beyond_the_price_band() -> None:
    contract = contract_for(BTC, 100_000.0)
    coarse = replace(contract, instrument=replace(contract.instrument, lot_step=Decimal("0.005")))
    engine = MatchingEngine(WrittenSource(flat(100_000.0, 3)), start=START, contracts={BTC: coarse})
    with pytest.raises(OrderRejectedError) as caught:
        engine.place_order(market(BUY, "0.012"))
    assert caught.value.code == -4023
    narrow = replace(contract, multiplier_up=Decimal("1.000001"))
    engine = MatchingEngine(WrittenSource(flat(100_000.0, 3)), start=START, contracts={BTC: narrow})
    with pytest.raises(OrderRejectedError) as caught:
        engine.place_order(market(BUY, "0.01"))
    assert caught.value.code == -4131


def test_the_number_of_resting_orders_is_bounded() -> None:
    contract = replace(contract_for(BTC, 100_000.0), max_open_orders=2, max_algo_orders=1)
    engine = MatchingEngine(WrittenSource(flat(100_000.0, 3)), start=START, contracts={BTC: contract})
    for _ in range(2):
        engine.place_order(limit(BUY, "0.01", "99000"))
    with pytest.raises(OrderRejectedError) as caught:
        engine.place_order(limit(BUY, "0.01", "99000"))
    assert caught.value.code == -2025
    engine.place_algo(stop(SELL, "0.1", "99000"))
    with pytest.raises(OrderRejectedError) as caught:
        engine.place_algo(stop(SELL, "0.1", "99000"))
    assert caught.value.code == -4045


def test_reduce_only_orders_may_be_smaller_than_the_least_notional() -> None:
    engine = engine_on(flat(50_000.0, 3))
    engine.place_order(market(BUY, "0.003"))
    order = engine.place_order(market(SELL, "0.001", reduce_only=True))
    assert order.executed == Decimal("0.001")


def test_texts_fill_in_values_and_statuses_follow_the_code() -> None:
    assert str(refusal(-4028, 126)) == "Leverage `126` is not valid"
    assert [refusal(code).http_status for code in (-2014, -2015, -1021)] == [401, 401, 400]
    assert refusal(-1003, 2400).http_status == 429


def test_texts_are_those_of_the_documentation() -> None:
    golden = Path(__file__).parents[3] / "shared" / "golden" / "binance_error_codes.txt"
    known = dict(REFUSALS)
    if golden.is_file():
        lines = [line for line in golden.read_text().splitlines() if line.startswith("-")]
        documented = {int(line.split()[0]): line.split("|", 1)[1] for line in lines}
        # The page lacks -4120 and -1008, and tells a name instead of the text that is sent for -2011.
        for code in set(known) - {-4120, -1008, -2011}:
            assert known[code] in documented[code], code
    assert all(code < 0 and text for code, text in known.items())
