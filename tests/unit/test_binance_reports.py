"""Binance's words, as exec-risk reads and writes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from services.exec_risk_service.adapters.binance_reports import (
    algo_parameters,
    algo_report,
    instruments_of,
    order_parameters,
    order_report,
    payment,
    reports_of,
    trade_fill,
    venue_account,
)
from services.exec_risk_service.domain.orders import Leg, Order, Provenance
from services.exec_risk_service.domain.reports import CashChanged, CashKind, OrderReport
from shared.errors import InvalidInputError
from shared.trading.orders import OrderStatus, OrderType, Side

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
MS = 1767323045678

ORDER = Order(
    client_order_id="qt3-en-1",
    cause_event_id="signal",
    leg=Leg.ENTRY,
    sequence=1,
    symbol="BTCUSDT",
    side=Side.BUY,
    order_type=OrderType.MARKET,
    quantity=Decimal("1E-3"),
    trigger_price=None,
    leverage=5,
    arrival_price=Decimal(50_000),
    position_id="p",
    provenance=Provenance("t", "f", "t"),
    created_step=1,
    created_at=AT,
)
TRADE: dict[str, Any] = {
    "e": "ORDER_TRADE_UPDATE",
    "E": MS,
    "T": MS,
    "o": {
        "s": "BTCUSDT",
        "c": "qt3-en-1",
        "S": "BUY",
        "o": "MARKET",
        "ot": "MARKET",
        "q": "0.003",
        "x": "TRADE",
        "X": "PARTIALLY_FILLED",
        "i": 8886774,
        "l": "0.001",
        "z": "0.002",
        "L": "50000.10",
        "n": "0.02500005",
        "N": "USDT",
        "T": MS,
        "t": 77,
        "rp": "-1.5",
    },
}
ALGO: dict[str, Any] = {
    "e": "ALGO_UPDATE",
    "T": MS,
    "E": MS,
    "o": {
        "caid": "qt3-st-1",
        "aid": 21,
        "o": "STOP_MARKET",
        "s": "BTCUSDT",
        "S": "SELL",
        "q": "0.003",
        "X": "TRIGGERED",
        "ai": "8886775",
        "aq": "0",
        "tp": "49000",
        "rm": "",
    },
}


def trade(**changes: Any) -> dict[str, Any]:
    return {**TRADE, "o": {**TRADE["o"], **changes}}


def algo(**changes: Any) -> dict[str, Any]:
    return {**ALGO, "o": {**ALGO["o"], **changes}}


def only(event: dict[str, Any]) -> OrderReport:
    (report,) = reports_of(event)
    assert isinstance(report, OrderReport)
    return report


def test_numbers_leave_without_exponents() -> None:
    assert order_parameters(ORDER)["quantity"] == "0.001"


def test_a_market_entry_says_its_id_and_is_not_reduce_only() -> None:
    assert order_parameters(ORDER) == {
        "symbol": "BTCUSDT",
        "side": "BUY",
        "type": "MARKET",
        "quantity": "0.001",
        "newClientOrderId": "qt3-en-1",
        "newOrderRespType": "RESULT",
    }


def test_every_other_leg_is_reduce_only() -> None:
    stop = replace(ORDER, leg=Leg.STOP, order_type=OrderType.STOP_MARKET, trigger_price=Decimal("49000.0"))

    assert order_parameters(replace(ORDER, leg=Leg.EXIT))["reduceOnly"] == "true"
    sent = algo_parameters(stop)
    assert (sent["reduceOnly"], sent["triggerPrice"], sent["clientAlgoId"]) == ("true", "49000.0", "qt3-en-1")


def test_a_conditional_order_needs_a_trigger() -> None:
    with pytest.raises(InvalidInputError, match="no trigger price"):
        algo_parameters(replace(ORDER, leg=Leg.STOP, order_type=OrderType.STOP_MARKET))


def test_a_trade_is_read_with_every_number() -> None:
    report = only(TRADE)

    assert (report.status, report.filled_quantity, report.time) == (
        OrderStatus.PARTIALLY_FILLED,
        Decimal("0.002"),
        AT,
    )
    assert report.fill is not None
    assert report.fill.trade_id == 77
    assert report.fill.price == Decimal("50000.10")
    assert report.fill.commission == Decimal("0.02500005")
    assert report.fill.realized_pnl == Decimal("-1.5")
    assert report.fill.time == AT


def test_what_is_no_trade_carries_no_fill() -> None:
    assert only(trade(x="NEW", X="NEW", t=0, z="0")).fill is None
    assert only(trade(x="CANCELED", X="CANCELED")).fill is None


def test_a_liquidation_is_a_trade() -> None:
    assert only(trade(x="CALCULATED", c="autoclose-1")).fill is not None


@pytest.mark.parametrize(("amount", "asset"), [("0.0001", "BNB"), (None, None)])
def test_fees_that_do_not_come_from_the_wallet_are_none_of_its(amount: str | None, asset: str | None) -> None:
    fill = only(trade(n=amount, N=asset)).fill

    assert fill is not None
    assert fill.commission == 0


def test_a_missing_fee_means_none() -> None:
    body = {name: value for name, value in TRADE["o"].items() if name not in ("n", "N")}
    fill = only({**TRADE, "o": body}).fill

    assert fill is not None
    assert fill.commission == 0


@pytest.mark.parametrize(
    ("text", "executed", "status"),
    [
        ("NEW", "0", OrderStatus.NEW),
        ("TRIGGERING", "0", OrderStatus.TRIGGERED),
        ("TRIGGERED", "0", OrderStatus.TRIGGERED),
        ("FINISHED", "0.003", OrderStatus.FILLED),
        ("FINISHED", "0", OrderStatus.EXPIRED),
        ("CANCELED", "0", OrderStatus.CANCELED),
        ("REJECTED", "0", OrderStatus.REJECTED),
    ],
)
def test_a_condition_and_its_market_order_are_one_order(text: str, executed: str, status: OrderStatus) -> None:
    report = only(algo(X=text, aq=executed))

    assert (report.client_order_id, report.algo_id, report.exchange_order_id) == ("qt3-st-1", "21", "8886775")
    assert (report.status, report.filled_quantity) == (status, Decimal(executed))


def test_the_reason_of_a_refused_trigger_is_kept() -> None:
    assert only(algo(X="REJECTED", rm="ReduceOnly Order is rejected.")).reason == "ReduceOnly Order is rejected."


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"e": "ACCOUNT_UPDATE", "T": MS, "a": {"m": "ORDER", "B": [], "P": []}}, ()),
        ({"e": "ACCOUNT_UPDATE", "T": MS, "a": {"m": "FUNDING_FEE", "B": [], "P": []}}, (CashChanged(),)),
        ({"e": "ACCOUNT_UPDATE", "T": MS, "a": {"m": "WITHDRAW", "B": [], "P": []}}, (CashChanged(),)),
        ({"e": "TRADE_LITE"}, ()),
        ({"e": "listenKeyExpired"}, ()),
    ],
)
def test_other_messages_say_at_most_that_money_moved(event: dict[str, Any], expected: tuple[object, ...]) -> None:
    assert reports_of(event) == expected


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"e": "ORDER_TRADE_UPDATE", "T": MS, "o": {}},
        trade(X="SOMETHING_NEW"),
        trade(L="NaN"),
        trade(l="Infinity"),
        trade(S="BOTH"),
        algo(q="abc"),
        {"e": "ALGO_UPDATE", "T": "soon", "o": {}},
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as error:
        reports_of(event)

    assert "\n" not in str(error.value)


def test_answers_are_read_like_events() -> None:
    answer = {
        "orderId": 5,
        "symbol": "BTCUSDT",
        "status": "EXPIRED_IN_MATCH",
        "clientOrderId": "qt3-en-1",
        "executedQty": "0.001",
        "origQty": "0.003",
        "type": "MARKET",
        "origType": "MARKET",
        "side": "BUY",
        "updateTime": MS,
    }

    report = order_report(answer)

    assert (report.status, report.filled_quantity) == (OrderStatus.EXPIRED, Decimal("0.001"))
    assert (report.exchange_order_id, report.time) == ("5", AT)


def test_a_truncated_answer_is_no_answer() -> None:
    with pytest.raises(KeyError):
        order_report({"orderId": 5})
    with pytest.raises(KeyError):
        algo_report({"algoId": 5, "clientAlgoId": "x"})


def test_a_row_of_trades_has_no_client_id() -> None:
    fill = trade_fill(
        {
            "symbol": "BTCUSDT",
            "id": 77,
            "orderId": 5,
            "side": "SELL",
            "price": "50000.1",
            "qty": "0.001",
            "realizedPnl": "2",
            "commission": "0.025",
            "commissionAsset": "USDT",
            "time": MS,
        }
    )

    assert (fill.client_order_id, fill.exchange_order_id, fill.trade_id) == ("", "5", 77)
    assert (fill.side, fill.time) == (Side.SELL, AT)


def test_incomes_are_funding_or_transfers_unless_they_come_with_a_trade() -> None:
    row = {"symbol": "BTCUSDT", "incomeType": "FUNDING_FEE", "income": "-0.05", "tranId": 9, "time": MS}

    funding = payment(row)
    transfer = payment({**row, "incomeType": "TRANSFER", "symbol": ""})

    assert funding is not None
    assert (funding.kind, funding.amount, funding.key) == (CashKind.FUNDING, Decimal("-0.05"), "FUNDING_FEE:9")
    assert transfer is not None
    assert (transfer.kind, transfer.symbol) == (CashKind.TRANSFER, "")
    assert payment({**row, "incomeType": "COMMISSION"}) is None
    assert payment({**row, "incomeType": "REALIZED_PNL"}) is None


def test_flat_positions_are_left_out() -> None:
    row = {"symbol": "BTCUSDT", "positionAmt": "-0.5", "entryPrice": "50000", "markPrice": "49000"}

    account = venue_account(
        {"totalWalletBalance": "123.45"}, [row, {**row, "symbol": "ETHUSDT", "positionAmt": "0.000"}]
    )

    assert account.wallet_balance == Decimal("123.45")
    assert [(p.symbol, p.quantity) for p in account.positions] == [("BTCUSDT", Decimal("-0.5"))]


def test_only_what_can_be_traded_is_listed() -> None:
    row: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "contractType": "PERPETUAL",
        "status": "TRADING",
        "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.10"},
            {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "1000"},
            {"filterType": "MARKET_LOT_SIZE", "stepSize": "0.001", "minQty": "0.002", "maxQty": "120"},
            {"filterType": "MIN_NOTIONAL", "notional": "100"},
        ],
    }
    rows = [
        row,
        {**row, "symbol": "OLDUSDT", "status": "SETTLING"},
        {**row, "symbol": "Q", "contractType": "CURRENT_QUARTER"},
    ]
    brackets = [
        {
            "symbol": "BTCUSDT",
            "brackets": [
                {"initialLeverage": 125, "maintMarginRatio": 0.004},
                {"initialLeverage": 100, "maintMarginRatio": 0.005},
            ],
        }
    ]

    found = instruments_of({"symbols": rows}, brackets)

    assert list(found) == ["BTCUSDT"]
    assert (found["BTCUSDT"].max_leverage, found["BTCUSDT"].min_quantity) == (125, Decimal("0.002"))
    assert found["BTCUSDT"].maintenance_rate == Decimal("0.004")
