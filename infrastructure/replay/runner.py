"""One replay from the first candle to the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from infrastructure.paper_exchange.admin_api import plain_books
from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.replay.recording import digest
from infrastructure.replay.suite import SERVICES, ReplaySettings, ReplaySuite
from infrastructure.supervisor.invariants import ExchangeBooks, Invariants, check_invariants
from services.ai_service.training.pipeline import Report
from services.exec_risk_service.domain.orders import Order
from shared.clock import Clock
from shared.errors import ConfigurationError
from shared.events.codec import decode
from shared.events.envelope import Event
from shared.events.registry import EVENTS
from shared.events.streams import event_stream
from shared.trading.instruments import timeframe_duration

#: Told (candles closed so far, all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Figures of one replay; USD amounts are USDT of the paper account.

    Attributes:
        digest: SHA-256 over every byte of every event: equal digests mean bit-equal replays.
        seconds: Wall time of the playing, training not included.
    """

    market_start: datetime
    market_end: datetime
    candles: int
    predictions: int
    signals: int
    intents: int
    fills: int
    positions_opened: int
    positions_closed: int
    realised_pnl_usd: float
    fees_usd: float
    funding_usd: float
    equity_usd: float
    dead_letters: int
    invariants: dict[str, bool]
    trace_example: str | None
    digest: str
    seconds: float
    candles_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Replayed:
    """Everything that one replay leaves behind.

    Attributes:
        report: Its figures.
        events: Every event in the order of publishing.
        intents: Every order that exec-risk decided to send, in order.
    """

    report: ReplayReport
    events: tuple[Event[Any], ...]
    intents: tuple[Order, ...]


async def replay(
    source: CandleSource,
    settings: ReplaySettings,
    end: datetime,
    *,
    clock: Clock,
    on_training: Report,
    on_progress: Progress,
) -> Replayed:
    """Play the market from ``settings.start`` to ``end`` as fast as it goes.

    Args:
        source: The candles.
        settings: What is replayed.
        end: Market time at which the last candle has closed.
        clock: Measures the wall time; nothing else reads it.
        on_training: Told about the training of a missing model.
        on_progress: Told about the playing.

    Raises:
        ConfigurationError: ``end`` is not after the start.
    """
    step = timeframe_duration(settings.timeframe)
    slots = (end - settings.start) // step
    if slots < 1:
        raise ConfigurationError(
            f"nothing to replay: --to {end.isoformat()} is less than one {settings.timeframe} candle after --from "
            f"{settings.start.isoformat()}"
        )
    suite = ReplaySuite(source, settings)
    await suite.start(on_training)
    try:
        began = clock.monotonic()
        candles = 0
        for number in range(slots):
            candles += await suite.play(settings.start + number * step)
            on_progress(number + 1, slots)
        seconds = clock.monotonic() - began
    finally:
        await suite.stop()
    events = events_of(suite)
    return Replayed(_report(suite, events, candles, seconds), events, tuple(suite.steps.intents))


def events_of(suite: ReplaySuite) -> tuple[Event[Any], ...]:
    """Return every event of ``suite`` by wall time, then by type and order of publishing."""
    found = [
        decode(fields) for event_type in sorted(EVENTS) for fields in suite.broker.entries(event_stream(event_type))
    ]
    return tuple(sorted(found, key=lambda event: event.metadata.timestamp))


def invariants_of(suite: ReplaySuite) -> Invariants:
    """Compare the engine's books with exec-risk's."""
    # Over JSON, as the live report reads them from the admin port.
    books = orjson.loads(orjson.dumps(plain_books(suite.engine.books()), default=str))
    return check_invariants(ExchangeBooks.from_json(books), suite.steps.books(suite.exec_risk.ledger.book))


def _report(suite: ReplaySuite, events: tuple[Event[Any], ...], candles: int, seconds: float) -> ReplayReport:
    count = Counter(event.metadata.event_type for event in events)
    book = suite.exec_risk.ledger.book
    cash = book.cash
    wallet = cash.wallet if cash.wallet is not None else cash.start_wallet
    open_profit = sum(position.unrealized_pnl for position in suite.engine.account().positions)
    opened = [event.metadata.trace_id for event in events if event.metadata.event_type == "position.opened"]
    closed = {event.metadata.trace_id for event in events if event.metadata.event_type == "position.closed"}
    return ReplayReport(
        market_start=suite.started_at,
        market_end=suite.engine.now,
        candles=candles,
        predictions=count["model.prediction"],
        signals=count["signal.generated"],
        intents=len(suite.steps.intents),
        fills=sum(len(suite.engine.fills(symbol)) for symbol in suite.engine.symbols),
        positions_opened=count["position.opened"],
        positions_closed=count["position.closed"],
        realised_pnl_usd=float(cash.realized_pnl),
        fees_usd=float(cash.commission),
        funding_usd=float(cash.funding),
        equity_usd=float(wallet + open_profit),
        dead_letters=sum(len(suite.broker.dead_letters(service)) for service in SERVICES),
        invariants={name: verdict.holds for name, verdict in invariants_of(suite).by_name().items()},
        trace_example=next((trace for trace in opened if trace in closed), next(iter(opened), None)),
        digest=digest(events),
        seconds=round(seconds, 3),
        candles_per_second=round(candles / seconds, 1) if seconds > 0 else 0.0,
    )
