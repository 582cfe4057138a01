"""Publishes every closed candle once and in order: live from the stream, repaired from the history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum

import structlog

from services.ai_service.domain.candle_events import candle_closed, candle_event_id, candle_trace_id
from services.ai_service.domain.candle_sequence import Arrival, CandleSequence
from services.ai_service.ports import CandleHistory, CandleStream, FeedCursor, Restarted, Unusable
from shared.backoff import Backoff
from shared.bus.event_bus import EventBus
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import ExchangeError, TransientError
from shared.telemetry.metrics import Metrics
from shared.trading.candles import Candle, expected_last_open
from shared.trading.instruments import timeframe_duration

log = structlog.get_logger(__name__)

#: How often the history is asked for a candle that must exist before it is given up.
_REPAIR_TRIES = 3
_REPAIR_PAUSE_SECONDS = 0.5
_LONGEST_QUIET_SECONDS = 30.0
#: A candle cannot be closed before its time; our clock and the exchange's may differ by this much market time.
_CLOCK_TOLERANCE = timedelta(seconds=5)


class _Message(Enum):
    CATCH_UP = "catch up with market time"


class CandleFeed:
    """The market data component: one worker per symbol, so that one symbol's repair never delays another.

    A candle counts as published when the bus has taken it. Whatever goes wrong before that leaves the sequence where
    it was, and the watchdog asks the history again.

    Attributes:
        name: Component name.
    """

    name = "market-data"

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        timeframe: str,
        run_id: str,
        stream: CandleStream,
        history: CandleHistory,
        cursor: FeedCursor,
        bus: EventBus,
        clock: Clock,
        market_clock: Clock,
        quiet_seconds: float,
        max_backfill_candles: int,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare, without connecting.

        Args:
            symbols: Venue symbols.
            timeframe: Length of the candles.
            run_id: Part of every event id.
            stream: Candles as they close.
            history: Candles of the past.
            cursor: What an earlier life of this run published.
            bus: Where the candles go.
            clock: Wall clock of pauses.
            market_clock: Says which candles must have closed.
            quiet_seconds: Wall seconds after which an overdue candle is asked for.
            max_backfill_candles: Most candles per symbol that are published late after an absence.
            metrics: Counters of the process.
        """
        self._stream = stream
        self._cursor = cursor
        self._clock = clock
        self._market_clock = market_clock
        self._timeframe = timeframe
        self._quiet_seconds = quiet_seconds
        self._max_backfill = max_backfill_candles
        self._symbols = {
            symbol: _SymbolFeed(
                symbol,
                timeframe,
                run_id=run_id,
                history=history,
                cursor=cursor,
                bus=bus,
                clock=clock,
                market_clock=market_clock,
                metrics=metrics,
            )
            for symbol in symbols
        }
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin after the last candle that this run published, or, in a new run, with the candle now forming."""
        published = self._cursor.load()
        step = timeframe_duration(self._timeframe)
        forming = expected_last_open(self._market_clock.now(), self._timeframe) + step
        for symbol, feed in self._symbols.items():
            begin = published[symbol] + step if symbol in published else forming
            # Never after the candle now forming: a note from a market that was ahead would silence this one.
            begin = min(forming, max(begin, forming - step * self._max_backfill))
            self._tasks.append(asyncio.create_task(feed.run(begin), name=f"candles-{symbol}"))
        self._tasks.append(asyncio.create_task(self._follow(), name="candle-stream"))
        self._tasks.append(asyncio.create_task(self._watch(), name="candle-watchdog"))

    async def stop(self) -> None:
        """Publish no more."""
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*(end_task(task) for task in tasks))

    def age_seconds(self) -> float | None:
        """Return the market time since the newest published candle closed; None before the first."""
        closes = [feed.published_until for feed in self._symbols.values() if feed.published_until]
        return (self._market_clock.now() - max(closes)).total_seconds() if closes else None

    def behind(self) -> dict[str, int]:
        """Return how many closed candles are not published yet, for the symbols that are behind."""
        now = self._market_clock.now()
        late = {symbol: feed.candles_behind(now) for symbol, feed in self._symbols.items()}
        return {symbol: count for symbol, count in late.items() if count > 0}

    async def _follow(self) -> None:
        while True:
            try:
                async for arrival in self._stream.arrivals():
                    self._pass_on(arrival)
            except Exception as error:  # noqa: BLE001 - without this task the feed would live on REST alone
                log.error("candle_stream_failed", error=f"{type(error).__name__}: {error}")
            await self._clock.sleep(self._quiet_seconds)

    def _pass_on(self, arrival: Candle | Unusable | Restarted) -> None:
        match arrival:
            case Candle():
                self._symbols[arrival.symbol].tell(arrival)
            case Unusable():
                if self._metrics is not None:
                    self._metrics.candle_refused()
                log.error("candle_refused", symbol=arrival.symbol, source="websocket", reason=arrival.reason)
                self._catch_up(arrival.symbol)
            case Restarted():
                log.info("candle_stream_connected")
                self._catch_up(None)

    def _catch_up(self, symbol: str | None) -> None:
        for name, feed in self._symbols.items():
            if symbol in (None, name):
                feed.tell(_Message.CATCH_UP)

    async def _watch(self) -> None:
        """Ask for candles that should have come: a stream can be silent without being broken."""
        while True:
            await self._clock.sleep(self._quiet_seconds / 2)
            for feed in self._symbols.values():
                if feed.is_overdue(self._market_clock.now(), self._quiet_seconds):
                    feed.tell(_Message.CATCH_UP)


class _SymbolFeed:
    """Publishes the candles of one symbol, one after the other."""

    def __init__(
        self,
        symbol: str,
        timeframe: str,
        *,
        run_id: str,
        history: CandleHistory,
        cursor: FeedCursor,
        bus: EventBus,
        clock: Clock,
        market_clock: Clock,
        metrics: Metrics | None,
    ) -> None:
        self._symbol = symbol
        self._timeframe = timeframe
        self._step = timeframe_duration(timeframe)
        self._run_id = run_id
        self._history = history
        self._cursor = cursor
        self._bus = bus
        self._clock = clock
        self._market_clock = market_clock
        self._metrics = metrics
        self._inbox: asyncio.Queue[Candle | _Message] = asyncio.Queue()
        self._sequence: CandleSequence | None = None
        self._waiting_for: datetime | None = None
        self._waiting_since = 0.0
        self._fruitless = 0
        self.published_until: datetime | None = None

    def tell(self, message: Candle | _Message) -> None:
        """Give the worker something to do; a second CATCH_UP in a row adds nothing."""
        if isinstance(message, Candle) or self._inbox.empty():
            self._inbox.put_nowait(message)

    async def run(self, begin: datetime) -> None:
        """Work off the inbox for ever, beginning with the candle that opens at ``begin``."""
        self._sequence = CandleSequence(self._timeframe, begin)
        while True:
            message = await self._inbox.get()
            try:
                if isinstance(message, Candle):
                    await self._take(self._sequence, message)
                else:
                    await self._fill(self._sequence, self._now_closed(), certain=False)
            except (TransientError, ExchangeError) as error:
                log.warning("candles_delayed", symbol=self._symbol, error=str(error))
            except Exception as error:  # noqa: BLE001 - a worker that ends would silence its symbol for ever
                log.error("candles_delayed", symbol=self._symbol, error=f"{type(error).__name__}: {error}")

    def candles_behind(self, now: datetime) -> int:
        """Return how many candles have closed at market time ``now`` and are not published."""
        if self._sequence is None:
            return 0
        closed = expected_last_open(now, self._timeframe) + self._step
        return max(0, (closed - self._sequence.next_open) // self._step)

    def is_overdue(self, now: datetime, quiet_seconds: float) -> bool:
        """Tell whether the next candle has been due for ``quiet_seconds`` of wall time, longer after vain tries."""
        if self._sequence is None or self.candles_behind(now) == 0:
            self._waiting_for = None
            return False
        if self._waiting_for != self._sequence.next_open:
            self._waiting_for, self._waiting_since = self._sequence.next_open, self._clock.monotonic()
            self._fruitless = 0
            return False
        patience = Backoff(base_seconds=quiet_seconds, cap_seconds=_LONGEST_QUIET_SECONDS).delay(self._fruitless + 1)
        if self._clock.monotonic() - self._waiting_since < patience:
            return False
        self._waiting_since = self._clock.monotonic()
        self._fruitless += 1
        return True

    def _now_closed(self) -> datetime:
        """Return the open time of the candle that is forming: everything before it has closed."""
        return expected_last_open(self._market_clock.now(), self._timeframe) + self._step

    async def _take(self, sequence: CandleSequence, candle: Candle) -> None:
        if candle.close_time > self._market_clock.now() + _CLOCK_TOLERANCE:
            self._refuse(f"it closes at {candle.close_time.isoformat()}, which is in the future")
            return
        arrival = sequence.judge(candle)
        if arrival is Arrival.AHEAD:
            log.info("candle_gap", symbol=self._symbol, missing_from=sequence.next_open.isoformat())
            await self._fill(sequence, candle.open_time, certain=True)
            arrival = sequence.judge(candle)
        if arrival is Arrival.IMPLAUSIBLE:
            self._refuse(f"close {candle.close} after {sequence.last_close} is implausible")
            await self._fill(sequence, candle.close_time, certain=True)
        elif arrival is Arrival.NEXT:
            await self._publish(sequence, candle, "websocket")

    def _refuse(self, reason: str) -> None:
        if self._metrics is not None:
            self._metrics.candle_refused()
        log.error("candle_refused", symbol=self._symbol, source="websocket", reason=reason)

    async def _fill(self, sequence: CandleSequence, until: datetime, *, certain: bool) -> None:
        """Publish from the history what lies before ``until``.

        Args:
            sequence: Where the symbol stands.
            until: Open time of the first candle that is not wanted.
            certain: The exchange is known to be past ``until``: what it does not have by now, it never will.
        """
        tries = 0
        while sequence.next_open < until:
            before = sequence.next_open
            found = await self._history.candles(self._symbol, self._timeframe, sequence.next_open, until)
            for candle in found:
                if candle.open_time == sequence.next_open:
                    await self._publish(sequence, candle, "rest")
                    if self._metrics is not None:
                        self._metrics.candle_repaired()
            later = [candle.open_time for candle in found if candle.open_time > sequence.next_open]
            if sequence.next_open >= until or not (certain or later):
                return
            tries = 0 if sequence.next_open > before else tries + 1
            if tries >= _REPAIR_TRIES:
                self._give_up(sequence, min(later, default=until))
                tries = 0
            else:
                await self._clock.sleep(_REPAIR_PAUSE_SECONDS)

    def _give_up(self, sequence: CandleSequence, next_open: datetime) -> None:
        missing_from = sequence.next_open
        count = sequence.skip_to(next_open)
        if self._metrics is not None:
            self._metrics.candles_missing(count)
        log.error(
            "candles_missing_at_exchange", symbol=self._symbol, missing_from=missing_from.isoformat(), count=count
        )

    async def _publish(self, sequence: CandleSequence, candle: Candle, source: str) -> None:
        event_id = candle_event_id(self._run_id, candle)
        await self._bus.publish(
            "candle.closed", candle_closed(candle, source), trace_id=candle_trace_id(event_id), event_id=event_id
        )
        sequence.advance(candle)
        self.published_until = candle.close_time
        self._cursor.save(candle.symbol, candle.open_time)
