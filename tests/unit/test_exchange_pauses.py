"""What requests cost and which pauses answers ask for: literal tables."""

from __future__ import annotations

from typing import Any

import pytest

from infrastructure.paper_exchange.endpoints import ENDPOINTS
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.request_weight import weigh
from shared.exchange.outcome import Answer
from shared.exchange.pauses import Pause, PauseKind, longer, pause_after, pause_of
from shared.exchange.request_costs import Priority, request_of

NOW = 1_800_000_000_000


@pytest.mark.parametrize(
    ("method", "path", "parameters", "weight", "priority"),
    [
        ("POST", "order", {"symbol": "BTCUSDT"}, 0, Priority.ENTRY),
        ("POST", "order", {"reduceOnly": "false"}, 0, Priority.ENTRY),
        ("POST", "order", {"reduceOnly": "true"}, 0, Priority.EXIT),
        ("POST", "order", {"reduceOnly": True}, 0, Priority.EXIT),
        ("POST", "algoOrder", {"closePosition": "true"}, 0, Priority.EXIT),
        ("POST", "algoOrder", {"reduceOnly": "true"}, 0, Priority.EXIT),
        ("POST", "leverage", {}, 1, Priority.ENTRY),
        ("DELETE", "order", {}, 1, Priority.EXIT),
        ("GET", "order", {}, 1, Priority.EXIT),
        ("GET", "algoOrder", {}, 1, Priority.EXIT),
        ("GET", "openOrders", {"symbol": "BTCUSDT"}, 1, Priority.ACCOUNT),
        ("GET", "openOrders", {}, 40, Priority.ACCOUNT),
        ("GET", "klines", {}, 5, Priority.MARKET),
        ("GET", "klines", {"limit": 99}, 1, Priority.MARKET),
        ("GET", "klines", {"limit": "499"}, 2, Priority.MARKET),
        ("GET", "klines", {"limit": 1000}, 5, Priority.MARKET),
        ("GET", "klines", {"limit": 1500}, 10, Priority.MARKET),
        ("GET", "depth", {"limit": 1000}, 20, Priority.ACCOUNT),
        ("GET", "somethingNew", {}, 20, Priority.ACCOUNT),
    ],
)
def test_what_a_request_costs(
    method: str, path: str, parameters: dict[str, Any], weight: int, priority: Priority
) -> None:
    request = request_of(method, path, parameters)

    assert (request.weight, request.priority) == (weight, priority)
    assert request.adds_exposure is (priority is Priority.ENTRY)


BANNED = f'{{"code":-1003,"msg":"Way too many requests; IP banned until {NOW + 300_000}. Please use"}}'


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "seconds"),
    [
        (429, "", {"Retry-After": "7"}, PauseKind.LIMIT, 7),
        (429, "", {"retry-after": "7"}, PauseKind.LIMIT, 7),
        (429, "", {}, PauseKind.LIMIT, 60),
        (429, "", {"Retry-After": "soon"}, PauseKind.LIMIT, 60),
        (400, '{"code":-1003,"msg":"Too many requests"}', {}, PauseKind.LIMIT, 60),
        (418, "", {"Retry-After": "600"}, PauseKind.BAN, 600),
        (418, BANNED, {}, PauseKind.BAN, 300),
        (418, BANNED, {"Retry-After": "900"}, PauseKind.BAN, 900),
        (418, "", {}, PauseKind.BAN, 120),
        (403, "<html>", {}, PauseKind.FIREWALL, 60),
        (400, '{"code":-1015,"msg":"Too many new orders"}', {}, PauseKind.ORDERS, 10),
        (429, '{"code":-1015,"msg":"Too many new orders"}', {"Retry-After": "3"}, PauseKind.ORDERS, 3),
        (503, '{"code":-1008,"msg":"Request throttled"}', {}, PauseKind.ORDERS, 1),
        (503, "Service Unavailable.", {}, PauseKind.ORDERS, 1),
    ],
)
def test_answers_that_ask_for_a_pause(
    status: int, body: str, headers: dict[str, str], kind: PauseKind, seconds: int
) -> None:
    pause = pause_after(Answer("POST", "/fapi/v1/order", status, body), headers, NOW)

    assert pause is not None
    assert (pause.kind, pause.seconds_left(NOW)) == (kind, seconds)
    assert pause_of(pause.as_text()) == pause
    assert kind.stops_everything is (kind is not PauseKind.ORDERS)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "{}"),
        (400, '{"code":-2019,"msg":"Margin is insufficient."}'),
        (401, '{"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'),
        (403, '{"code":-2015,"msg":"Invalid API-key"}'),
        (500, ""),
        (502, "<html>"),
        (503, '{"code":-1000,"msg":"Unknown error, please check your request or try again later."}'),
        (None, ""),
    ],
)
def test_answers_that_ask_for_none(status: int | None, body: str) -> None:
    assert pause_after(Answer("POST", "/fapi/v1/order", status, body), {}, NOW) is None


def test_a_ban_is_believed_for_three_days_at_most() -> None:
    pause = pause_after(Answer("GET", "/", 418, '{"code":-1003,"msg":"IP banned until 9999999999999."}'), {}, NOW)

    assert pause is not None
    assert pause.seconds_left(NOW) == 3 * 24 * 3600


@pytest.mark.parametrize("text", ["", "x", "{}", '{"kind":"NEVER","until_ms":1,"why":""}', "[1]", b"\xff"])
def test_what_is_no_pause_is_ignored(text: str | bytes) -> None:
    assert pause_of(text) is None


def test_the_longer_pause_counts() -> None:
    short, long = Pause(PauseKind.LIMIT, NOW, "a"), Pause(PauseKind.BAN, NOW + 1, "b")

    assert longer(short, long) is longer(long, short) is long
    assert longer(None, short) is longer(short, None) is short
    assert longer(None, None) is None


#: Endpoints that no service calls; whoever begins to gives them a price first, or they count as dear ones.
_UNUSED = {
    "accountConfig", "adlQuantile", "constituents", "continuousKlines", "depth", "feeBurn", "forceOrders",
    "fundingInfo", "historicalTrades", "indexPriceKlines", "markPriceKlines", "multiAssetsMargin", "openInterest",
    "openOrder", "order/test", "orderAmendment", "positionMargin", "positionMargin/history", "rateLimit/order",
    "trades", "apiTradingStatus",
}  # fmt: skip


def test_every_endpoint_of_the_paper_exchange_has_its_price() -> None:
    """Prices are those that the exchange counts; an endpoint that is used and not in the table counts as a dear one."""
    wrong, unknown = set(), set()
    for each in ENDPOINTS:
        path = each.path.split("/", 3)[3]
        for parameters in ({}, {"symbol": "BTCUSDT"}, {"symbol": "BTCUSDT", "limit": "1000"}):
            ours, theirs = request_of(each.method, path, parameters).weight, weigh(each.weight, Parameters(parameters))
            if ours == 20 and theirs != 20:
                unknown.add(path)
            elif ours not in (theirs, 20):
                wrong.add((each.method, path, ours, theirs))

    assert not wrong
    assert unknown <= _UNUSED
