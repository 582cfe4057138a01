"""A recorded book: read without gaps, taken from, queued in; and the real recording, where it is at hand."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from infrastructure.replay.depth_capture import BookChanged, BookShown, Traded, read_capture
from infrastructure.replay.recorded_book import QueueFill, RecordedBook
from shared.errors import ConfigurationError
from shared.trading.orders import Side
from tests.support.markets import RECORDED

AT = datetime(2024, 8, 8, 12, tzinfo=UTC)
RECORDING = RECORDED.parent / "hft" / "btcusdt_20240808.gz"


def levels(*pairs: tuple[float, float]) -> tuple[tuple[Decimal, Decimal], ...]:
    return tuple((Decimal(str(price)), Decimal(str(quantity))) for price, quantity in pairs)


def shown() -> BookShown:
    return BookShown(AT, 10, levels((99, 5), (98, 7)), levels((101, 4), (102, 6)))


def changed(bids: tuple[Any, ...] = (), asks: tuple[Any, ...] = ()) -> BookChanged:
    return BookChanged(AT, 11, 11, 10, levels(*bids), levels(*asks))


def sold(price: float, quantity: float) -> Traded:
    return Traded(AT, Decimal(str(price)), Decimal(str(quantity)), Side.SELL)


def book() -> RecordedBook:
    made = RecordedBook()
    made.play(shown())
    return made


def pairs(found: list[Any]) -> list[tuple[Decimal, Decimal]]:
    return [(level.price, level.quantity) for level in found]


def test_an_order_takes_the_best_prices_first_and_what_it_took_is_gone_until_the_recording_speaks() -> None:
    market = book()
    assert market.mid == 100
    assert pairs(market.take(Side.BUY, Decimal(6), None)) == list(levels((101, 4), (102, 2)))
    assert pairs(market.levels(Side.BUY, 5)) == list(levels((102, 4)))
    market.play(changed(asks=((101, 3),)))
    assert pairs(market.levels(Side.BUY, 5)) == list(levels((101, 3), (102, 4)))
    assert pairs(market.take(Side.SELL, Decimal(20), Decimal(99))) == list(levels((99, 5)))


def test_a_resting_order_waits_behind_what_stood_there() -> None:
    market = book()
    market.join(1, Side.BUY, Decimal(99), Decimal(3))
    assert market.play(sold(99, 4)) == []
    assert market.ahead_of(1) == 1
    assert market.play(sold(99, 2)) == [QueueFill(1, Decimal(99), Decimal(1))]
    assert market.play(sold(99, 9)) == [QueueFill(1, Decimal(99), Decimal(2))]
    assert market.play(sold(99, 9)) == [], "it is filled and gone"


def test_cancels_ahead_shorten_the_queue_only_when_the_level_proves_them() -> None:
    market = book()
    market.join(1, Side.BUY, Decimal(99), Decimal(3))
    market.play(changed(bids=((99, 8),)))
    assert market.ahead_of(1) == 5
    market.play(changed(bids=((99, 2),)))
    assert market.ahead_of(1) == 2


def test_a_trade_through_the_price_meets_the_better_order_first_and_gives_no_more_than_was_traded() -> None:
    market = book()
    market.join(1, Side.BUY, Decimal(99), Decimal(3))
    market.join(2, Side.BUY, Decimal("99.5"), Decimal(3))
    assert market.play(sold(98, 4)) == [
        QueueFill(2, Decimal("99.5"), Decimal(3)),
        QueueFill(1, Decimal(99), Decimal(1)),
    ]


def test_recorded_trades_empty_the_book_until_the_next_change_tells_it_anew() -> None:
    market = book()
    market.play(sold(98, 3))
    assert pairs(market.levels(Side.SELL, 5)) == list(levels((98, 4))), "nothing is left above 98"
    market.play(changed(bids=((99, 1),)))
    assert pairs(market.levels(Side.SELL, 5)) == list(levels((99, 1), (98, 7)))


def test_a_buyers_trade_fills_no_bid() -> None:
    market = book()
    market.join(1, Side.BUY, Decimal("99.5"), Decimal(3))
    assert market.play(Traded(AT, Decimal(99), Decimal(5), Side.BUY)) == []


def test_a_best_price_that_reaches_the_order_fills_it_with_what_stands_there() -> None:
    market = book()
    market.join(1, Side.BUY, Decimal(100), Decimal(3))
    assert market.play(changed(asks=((99.8, 2),))) == [QueueFill(1, Decimal(100), Decimal(2))]
    market.leave(1)
    assert market.play(sold(99, 50)) == []


# -- the file ------------------------------------------------------------------------------------------------------


def line(number: int, message: dict[str, Any]) -> bytes:
    stamp = int((AT + timedelta(milliseconds=number)).timestamp() * 1_000_000) * 1000
    return b"%d %s\n" % (stamp, orjson.dumps(message))


def diff(first: int, last: int, previous: int) -> dict[str, Any]:
    body = {"e": "depthUpdate", "U": first, "u": last, "pu": previous, "b": [["99", "1"]], "a": []}
    return {"stream": "x@depth", "data": body}


SNAPSHOT = {"lastUpdateId": 20, "bids": [["99", "2"]], "asks": [["101", "2"]]}
TRADE = {"stream": "x@trade", "data": {"e": "trade", "p": "99", "q": "1", "X": "MARKET", "m": True}}


def written(folder: Path, messages: list[dict[str, Any]]) -> Path:
    path = folder / "book.gz"
    path.write_bytes(gzip.compress(b"".join(line(number, message) for number, message in enumerate(messages))))
    return path


def test_a_recording_starts_with_its_snapshot_and_the_changes_that_follow_on_it(tmp_path: Path) -> None:
    path = written(tmp_path, [diff(1, 9, 0), TRADE, diff(10, 22, 9), SNAPSHOT, TRADE, diff(23, 30, 22)])
    first, *rest = read_capture(path)
    assert isinstance(first, BookShown)
    assert [record.last_id if isinstance(record, BookChanged) else type(record) for record in rest] == [22, Traded, 30]
    assert rest[1] == Traded(AT + timedelta(milliseconds=4), Decimal(99), Decimal(1), Side.SELL)


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [([SNAPSHOT, diff(25, 30, 24)], "after update 20 is missing"), ([TRADE], "no snapshot"), ([{"x": 1}], "KeyError")],
)
def test_a_recording_with_a_hole_is_refused(tmp_path: Path, messages: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        read_capture(written(tmp_path, messages))


@pytest.mark.skipif(not RECORDING.is_file(), reason=f"the recorded book {RECORDING} is not on this machine")
def test_the_real_recording_plays_without_a_gap_and_its_trades_lie_at_its_prices() -> None:
    records = read_capture(RECORDING)
    market = RecordedBook()
    last, near = None, []
    for record in records:
        market.play(record)
        if isinstance(record, Traded):
            last = record
        elif last is not None:
            bid, ask = market.best(Side.SELL).price, market.best(Side.BUY).price
            assert bid < ask
            if record.at - last.at < timedelta(milliseconds=5):
                near.append(bid - 5 <= last.price <= ask + 5)
    assert sum(isinstance(record, Traded) for record in records) > 20_000
    assert sum(near) / len(near) > 0.95, f"of {len(near)}"
