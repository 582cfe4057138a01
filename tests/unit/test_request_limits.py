"""Windows of used weight, outages that get worse, prices that are wrong: the rules behind 429, 418 and odd messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.outages import Outages
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.request_weight import DEPTH, KLINES, Cost, UsedWeight, Weight, weigh, without_symbol
from infrastructure.paper_exchange.wrong_prices import with_wrong_answer, with_wrong_prices

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def test_windows_begin_on_the_full_minute_and_on_ten_seconds() -> None:
    used = UsedWeight()
    assert dict(used.count(Cost(40), NOON + timedelta(seconds=59)).headers) == {"X-MBX-USED-WEIGHT-1M": "40"}
    order = used.count(Cost(0, 1, 5), NOON + timedelta(seconds=59)).headers
    assert (order["X-MBX-ORDER-COUNT-10S"], order["X-MBX-ORDER-COUNT-1M"]) == ("1", "5")
    later = used.count(Cost(1, 1, 1), NOON + timedelta(seconds=60)).headers
    assert dict(later) == {"X-MBX-USED-WEIGHT-1M": "1", "X-MBX-ORDER-COUNT-10S": "1", "X-MBX-ORDER-COUNT-1M": "1"}


def test_a_limit_is_exceeded_by_what_goes_beyond_it() -> None:
    used = UsedWeight()
    assert used.count(Cost(2_400), NOON).exceeded is None
    over = used.count(Cost(1), NOON + timedelta(seconds=18))
    assert over.exceeded is not None
    assert (over.exceeded.kind, over.seconds_left) == ("REQUEST_WEIGHT", 42)
    assert used.count(Cost(0), NOON + timedelta(seconds=19)).exceeded is None, "what costs nothing passes"
    for _ in range(300):
        assert used.count(Cost(0, 1, 1), NOON + timedelta(seconds=30)).exceeded is None
    crowded = used.count(Cost(0, 1, 1), NOON + timedelta(seconds=33))
    assert crowded.exceeded is not None
    assert (crowded.exceeded.most, crowded.seconds_left) == (300, 7)


@pytest.mark.parametrize(
    ("weight", "parameters", "expected"),
    [
        (DEPTH, {}, 10),
        (DEPTH, {"limit": "50"}, 2),
        (DEPTH, {"limit": "1000"}, 20),
        (KLINES, {"limit": "nonsense"}, 5),
        (KLINES, {"limit": "9999"}, 10),
        (without_symbol(1, 40), {}, 40),
        (without_symbol(1, 40), {"symbol": "BTCUSDT"}, 1),
        (7, {}, 7),
    ],
)
def test_weights_by_parameter(weight: Weight, parameters: dict[str, str], expected: int) -> None:
    assert weigh(weight, Parameters(parameters)) == expected


def test_a_limit_that_is_ignored_becomes_a_ban_and_bans_grow() -> None:
    outages = Outages()
    assert outages.meet(0.0) is None
    bans = []
    now = 0.0
    for _ in range(3):
        outages.turn_away(now, 60)
        statuses = [met.status for _ in range(Outages.PATIENCE + 1) if (met := outages.meet(now)) is not None]
        assert statuses == [429] * Outages.PATIENCE + [418]
        met = outages.meet(now)
        assert met is not None
        bans.append(met.seconds_left(now))
        outages.turn_away(now, 60)
        still = outages.meet(now)
        assert still is not None
        assert still.status == 418, "a ban is not softened"
        now += bans[-1]
        assert outages.meet(now) is None
    assert bans == [120, 240, 480]


def test_who_waits_is_not_banned() -> None:
    outages = Outages()
    outages.turn_away(0.0, 5)
    for _ in range(Outages.PATIENCE - 1):
        assert outages.meet(1.0) is not None
    assert outages.meet(5.0) is None
    outages.turn_away(6.0, 5)
    met = outages.meet(6.0)
    assert met is not None
    assert met.status == 429, "patience begins anew"


def test_wrong_prices_leave_everything_else_alone() -> None:
    message = {"e": "markPriceUpdate", "s": "BTCUSDT", "p": "100", "i": "101", "P": "102", "r": "0.0001", "T": 5}
    assert with_wrong_prices(message, "zero") == {**message, "p": "0", "i": "0", "P": "0"}
    assert message["p"] == "100"
    assert with_wrong_prices({"e": "unknown", "p": "1"}, "nan") == {"e": "unknown", "p": "1"}
    answer = [{"symbol": "BTCUSDT", "lastPrice": "100.5", "volume": "3", "count": 7}]
    assert with_wrong_answer(answer, "spike") == [{**answer[0], "lastPrice": "1005.0"}]
    candle = [1, "1", "2", "0.5", "1.5", "9", 2]
    assert with_wrong_answer([candle], "negative") == [[1, "-1", "-2", "-0.5", "-1.5", "9", 2]]
    assert with_wrong_answer({"code": 200}, "nan") == {"code": 200}
    assert Decimal(str(with_wrong_answer({"bids": [["2", "1"]], "asks": []}, "spike")["bids"][0][0])) == 20
