"""The feed: every candle once and in order, whatever the stream does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.ai_service.adapters.market_data import CandleFeed
from services.ai_service.domain.candle_events import candle_event_id, candle_trace_id
from services.ai_service.ports import Restarted, Unusable
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.events.envelope import Event, EventPayload
from shared.ids import SeededIds
from shared.telemetry.metrics import Metrics
from shared.trading.candles import Candle
from tests.support.ai_market import NOON, MemoryCursor, MemoryHistory, ScriptedStream, published, walk
from tests.support.eventually import eventually

CANDLES = walk(40)
SECOND = timedelta(seconds=1)


class FlakyBus(MemoryBus):
    """Refuses the next ``outages`` events."""

    outages = 0

    async def publish(self, event_type: str, payload: EventPayload, **ids: Any) -> Event[Any]:
        if self.outages > 0:
            self.outages -= 1
            raise ConnectionLostError("Redis is away")
        return await super().publish(event_type, payload, **ids)


@dataclass
class Desk:
    """A running feed with everything around it in the test's hands."""

    feed: CandleFeed
    stream: ScriptedStream
    history: MemoryHistory
    cursor: MemoryCursor
    bus: FlakyBus
    broker: MemoryBroker
    wall: ManualClock
    market: ManualClock
    metrics: Metrics
    symbols: Sequence[str] = field(default_factory=tuple)

    def out(self, symbol: str = "BTCUSDT") -> list[Event[Any]]:
        return [event for event in published(self.broker, "candle.closed") if event.payload.symbol == symbol]

    def opened(self, symbol: str = "BTCUSDT") -> list[datetime]:
        return [event.payload.open_time for event in self.out(symbol)]

    async def until(self, condition: Callable[[], bool], what: str, *, step_seconds: float = 0.25) -> None:
        """Let wall time run until ``condition`` holds."""

        def step() -> bool:
            self.wall.advance(step_seconds)
            return condition()

        await eventually(step, what=what)

    async def has_published(self, count: int, symbol: str = "BTCUSDT") -> None:
        await self.until(lambda: len(self.out(symbol)) >= count, f"{count} candles of {symbol}")

    def figure(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"{name}_total", {"service": "ai-service"}) or 0.0


def times(candles: Sequence[Candle]) -> list[datetime]:
    return [candle.open_time for candle in candles]


@asynccontextmanager
async def desk(
    *,
    now: datetime = NOON + SECOND,
    known: Sequence[Candle] = (),
    cursor: MemoryCursor | None = None,
    symbols: Sequence[str] = ("BTCUSDT",),
    max_backfill: int = 100,
) -> AsyncIterator[Desk]:
    broker, wall, market = MemoryBroker(), ManualClock(NOON), ManualClock(now)
    bus = FlakyBus(broker, service="ai-service", instance="one", clock=wall, ids=SeededIds(1), market_clock=market)
    stream, history, cursor = ScriptedStream(), MemoryHistory(known), cursor or MemoryCursor()
    metrics = Metrics("ai-service", wall)
    feed = CandleFeed(
        symbols=symbols,
        timeframe="1m",
        run_id="r1",
        stream=stream,
        history=history,
        cursor=cursor,
        bus=bus,
        clock=wall,
        market_clock=market,
        quiet_seconds=2.0,
        max_backfill_candles=max_backfill,
        metrics=metrics,
    )
    await feed.start()
    try:
        yield Desk(feed, stream, history, cursor, bus, broker, wall, market, metrics)
    finally:
        await feed.stop()


async def live(desk: Desk, *candles: Candle) -> None:
    """Let market time reach each candle's close and the stream send it."""
    for candle in candles:
        desk.market.advance_to(candle.close_time)
        desk.stream.send(candle)
        await asyncio.sleep(0)


async def test_live_candles_are_published_once_in_order_under_names_of_their_own() -> None:
    async with desk() as d:
        await live(d, *CANDLES[:3], CANDLES[2], CANDLES[1], CANDLES[3])
        await d.has_published(4)

        assert d.opened() == times(CANDLES[:4])
        for event, candle in zip(d.out(), CANDLES, strict=False):
            assert event.metadata.event_id == candle_event_id("r1", candle)
            assert event.metadata.trace_id == candle_trace_id(event.metadata.event_id)
            assert event.metadata.causation_id is None
        assert d.out()[0].payload.source == "websocket"
        assert d.history.asked == []


async def test_candles_before_the_start_of_a_new_run_are_not_published() -> None:
    async with desk(now=CANDLES[5].open_time + SECOND, known=CANDLES) as d:
        d.stream.send(Restarted(), CANDLES[3])
        await live(d, CANDLES[5])
        await d.has_published(1)

        assert d.opened() == times(CANDLES[5:6])


async def test_a_gap_is_filled_from_the_history_before_the_candle_after_it() -> None:
    async with desk(known=CANDLES) as d:
        await live(d, CANDLES[0], CANDLES[4])
        await d.has_published(5)

        assert d.opened() == times(CANDLES[:5])
        assert [event.payload.source for event in d.out()] == ["websocket", "rest", "rest", "rest", "websocket"]
        assert d.figure("candles_repaired") == 3


async def test_a_candle_that_the_history_does_not_have_yet_is_waited_for() -> None:
    async with desk() as d:
        await live(d, CANDLES[0], CANDLES[2])
        await d.until(lambda: len(d.history.asked) == 2, "a second question")
        d.history.known = CANDLES
        await d.has_published(3)

        assert d.opened() == times(CANDLES[:3])


async def test_a_candle_that_the_exchange_never_gives_is_given_up_aloud_and_the_rest_flows() -> None:
    async with desk(known=[CANDLES[1]]) as d:
        await live(d, CANDLES[0], CANDLES[4])
        await d.has_published(3)
        await live(d, CANDLES[5])
        await d.has_published(4)

        assert d.opened() == times([CANDLES[0], CANDLES[1], CANDLES[4], CANDLES[5]])
        assert d.figure("candles_missing") == 2


async def test_an_unusable_candle_is_counted_and_replaced_by_the_history() -> None:
    async with desk(known=CANDLES) as d:
        await live(d, CANDLES[0])
        await d.has_published(1)
        d.market.advance_to(CANDLES[1].close_time)
        d.stream.send(Unusable("BTCUSDT", "close must be a finite number, was NaN"))
        await d.has_published(2)

        assert d.opened() == times(CANDLES[:2])
        assert d.out()[1].payload.source == "rest"
        assert d.figure("candles_refused") == 1


@pytest.mark.parametrize("factor", [10.0, 0.1])
async def test_a_tenfold_jump_is_believed_only_when_the_history_says_it_too(factor: float) -> None:
    async with desk(known=CANDLES) as d:
        await live(d, CANDLES[0], dataclasses.replace(CANDLES[1], close=CANDLES[1].close * factor))
        await d.has_published(2)

        assert d.out()[1].payload.close == CANDLES[1].close
        assert d.figure("candles_refused") == 1


async def test_a_jump_that_the_history_confirms_is_published() -> None:
    jumped = dataclasses.replace(CANDLES[1], high=2000, close=CANDLES[1].close * 10)
    async with desk(known=[jumped]) as d:
        await live(d, CANDLES[0], jumped)
        await d.has_published(2)

        assert d.out()[1].payload.close == jumped.close


async def test_a_candle_from_the_future_is_refused() -> None:
    async with desk() as d:
        d.stream.send(dataclasses.replace(CANDLES[0], close=1.0))  # closes in 59 s
        await eventually(lambda: d.figure("candles_refused") == 1, what="the refusal")
        await live(d, CANDLES[0])
        await d.has_published(1)

        assert d.out()[0].payload.close == CANDLES[0].close


async def test_a_silent_stream_is_replaced_by_questions() -> None:
    async with desk(known=CANDLES) as d:
        d.market.advance_to(CANDLES[2].close_time + SECOND)
        await d.has_published(3)

        assert d.opened() == times(CANDLES[:3])
        assert d.feed.behind() == {}


async def test_a_stream_on_time_is_not_doubted() -> None:
    async with desk(known=CANDLES) as d:
        for index in range(10):
            await live(d, CANDLES[index])
            await d.has_published(index + 1)

        assert d.history.asked == []


async def test_vain_questions_become_rarer() -> None:
    async with desk() as d:
        d.market.advance_to(CANDLES[0].close_time)
        began = d.wall.now()
        await d.until(lambda: d.wall.now() - began > timedelta(seconds=120), "two minutes", step_seconds=1.0)

        assert 4 <= len(d.history.asked) <= 10
        assert d.feed.behind() == {"BTCUSDT": 1}


async def test_after_a_reconnect_what_was_missed_comes_first() -> None:
    async with desk(known=CANDLES) as d:
        await live(d, CANDLES[0])
        d.market.advance_to(CANDLES[3].close_time)
        d.stream.send(Restarted())
        await d.has_published(4)
        await live(d, CANDLES[4])
        await d.has_published(5)

        assert d.opened() == times(CANDLES[:5])


async def test_a_restarted_feed_publishes_what_closed_while_it_was_away() -> None:
    cursor = MemoryCursor({"BTCUSDT": CANDLES[2].open_time})
    async with desk(now=CANDLES[6].open_time + SECOND, known=CANDLES, cursor=cursor) as d:
        d.stream.send(Restarted())
        await d.has_published(3)

        assert d.opened() == times(CANDLES[3:6])
        assert cursor.published["BTCUSDT"] == CANDLES[5].open_time


async def test_a_very_long_absence_is_bounded() -> None:
    cursor = MemoryCursor({"BTCUSDT": NOON - timedelta(days=3)})
    async with desk(now=CANDLES[10].open_time + SECOND, known=CANDLES, cursor=cursor, max_backfill=4) as d:
        d.stream.send(Restarted())
        await d.has_published(4)

        assert d.opened() == times(CANDLES[6:10])


async def test_a_note_from_a_market_that_was_ahead_does_not_silence_this_one() -> None:
    cursor = MemoryCursor({"BTCUSDT": NOON + timedelta(days=3)})
    async with desk(cursor=cursor) as d:
        await live(d, CANDLES[0])
        await d.has_published(1)


async def test_a_candle_that_the_bus_did_not_take_is_published_later() -> None:
    async with desk(known=CANDLES) as d:
        d.bus.outages = 2
        await live(d, CANDLES[0])
        await d.has_published(1)
        await live(d, CANDLES[1])
        await d.has_published(2)

        assert d.opened() == times(CANDLES[:2])


async def test_a_history_that_is_away_delays_and_loses_nothing() -> None:
    async with desk(known=CANDLES) as d:
        d.history.outages = 3
        await live(d, CANDLES[0], CANDLES[2])
        await d.has_published(3)

        assert d.opened() == times(CANDLES[:3])


async def test_one_symbol_in_trouble_does_not_hold_up_another() -> None:
    other = walk(5, symbol="ETHUSDT")
    async with desk(symbols=("BTCUSDT", "ETHUSDT")) as d:
        await live(d, CANDLES[3])  # its history lacks three candles
        await live(d, other[0])
        await eventually(lambda: d.opened("ETHUSDT") == times(other[:1]), what="the other symbol")

        assert d.opened("BTCUSDT") == []


async def test_the_age_of_the_market_data_is_told() -> None:
    async with desk() as d:
        assert d.feed.age_seconds() is None
        await live(d, CANDLES[0])
        await d.has_published(1)
        d.market.advance(42)

        assert d.feed.age_seconds() == 42
