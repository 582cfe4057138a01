"""The event bus over any stream store: publisher, consumer, and the table of who listens to what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import structlog

from shared.bus.consumer import Consumer, ConsumerOptions
from shared.bus.event_bus import Handler
from shared.bus.housekeeping import Housekeeper, HousekeepingRule
from shared.bus.middleware import (
    CallHandlers,
    Judge,
    Middleware,
    RefuseLateCommands,
    Report,
    SkipRepeated,
    SpanOfTry,
    work_under_trace,
    wrap,
)
from shared.bus.progress import BusProgress
from shared.bus.publisher import Publisher
from shared.bus.sequence_watch import Gap, SequenceWatch
from shared.bus.transport import Appender, EntrySource, EventBuffer, EventHistory, StreamKeeper
from shared.clock import Clock
from shared.errors import ConfigurationError, DecodeError, TransientError
from shared.events.codec import decode
from shared.events.envelope import Event, EventPayload
from shared.events.registry import EVENTS
from shared.events.streams import StreamNames, event_type_of
from shared.events.v3 import SystemAlertPayload
from shared.ids import IdSource
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import NO_SPANS, Spans

log = structlog.get_logger(__name__)

#: Event types that have streams of their own elsewhere.
_NOT_ON_THE_BUS = ("rpc.request", "rpc.response")
_PAGE = 500


class StreamBus:
    """``EventBus`` over a stream store; also a service component.

    Attributes:
        name: Component name.
    """

    name = "bus"

    def __init__(
        self,
        appender: Appender,
        source: EntrySource,
        *,
        service: str,
        producer: str,
        clock: Clock,
        market_clock: Clock,
        ids: IdSource,
        options: ConsumerOptions,
        keeper: StreamKeeper,
        history: EventHistory,
        metrics: Metrics | None = None,
        spans: Spans = NO_SPANS,
        buffer: EventBuffer | None = None,
        streams: StreamNames = StreamNames(),  # noqa: B008 - frozen
        housekeeping: HousekeepingRule = HousekeepingRule(),  # noqa: B008 - frozen
        tidies_itself: bool = True,
    ) -> None:
        """Prepare, without consuming; publishing works at once.

        Args:
            appender: Where events are published to.
            source: Where they come from.
            service: Name of the service: ``source`` of what it publishes, consumer group of what it reads.
            producer: Names this life of this process; sequences count per producer.
            clock: Wall clock: timestamps, delays, age of commands.
            market_clock: Market time: ``expires_at`` of commands.
            ids: New event and trace ids.
            options: Bounds and times of the consumer.
            keeper: Looks after the length of streams.
            history: What still lies in the streams.
            metrics: Counters of the process.
            spans: What a tracing system sees.
            buffer: Keeps facts while the store is away; None makes publishing fail then.
            streams: Names of the streams.
            housekeeping: When and how streams are trimmed.
            tidies_itself: False leaves it to calls of ``tidy``.
        """
        self._service = service
        self._publisher = Publisher(
            appender,
            service=service,
            producer=producer,
            clock=clock,
            ids=ids,
            streams=streams,
            metrics=metrics,
            spans=spans,
            buffer=buffer,
            on_published=self._count_published,
        )
        self._source = source
        self._clock = clock
        self._options = options
        self._keeper = keeper
        self._history = history
        self._metrics = metrics
        self._buffer = buffer
        self._streams = streams
        self._housekeeping = housekeeping
        self._tidies_itself = tidies_itself
        self._watch: SequenceWatch | None = None
        self._housekeeper: Housekeeper | None = None
        self._started = False
        self._subscriptions: list[tuple[str, Handler]] = []
        self._on_expired: Handler | None = None
        self._consumer: Consumer | None = None
        self._layers: tuple[Middleware, ...] = (
            work_under_trace,
            *([SpanOfTry(spans)] if spans.enabled else []),
            Report(clock, metrics),
            Judge(options.policy),
            SkipRepeated(options.remember_handled),
            *(
                [RefuseLateCommands(clock=clock, market_clock=market_clock, on_expired=lambda: self._on_expired)]
                if options.refuse_late_commands
                else []
            ),
        )

    async def publish(
        self,
        event_type: str,
        payload: EventPayload,
        *,
        trace_id: str | None = None,
        causation_id: str | None = None,
        event_id: str | None = None,
    ) -> Event[Any]:
        """Append one event to its stream; see ``EventBus.publish``."""
        return await self._publisher.publish(
            event_type, payload, trace_id=trace_id, causation_id=causation_id, event_id=event_id
        )

    def subscribe(self, pattern: str, handler: Handler) -> None:
        """Deliver matching events to ``handler``; see ``EventBus.subscribe``.

        Raises:
            ConfigurationError: No known event type matches, or the bus already consumes.
        """
        self._require_not_started(f"subscribe({pattern!r})")
        if not _matching(pattern):
            raise ConfigurationError(f"no event type matches {pattern!r}; known: {', '.join(EVENTS)}")
        self._subscriptions.append((pattern, handler))

    def on_expired(self, handler: Handler) -> None:
        """Tell ``handler`` of every command that is refused because it came late."""
        self._require_not_started("on_expired")
        self._on_expired = handler

    async def start(self) -> None:
        """Bring out what an earlier life left, and consume what was subscribed to; see ``EventBus.start``."""
        self._require_not_started("start")
        self._started = True
        await self._publisher.start()
        handlers = _handlers_by_type(self._subscriptions)
        # Only who gets everything can tell a loss from what it did not subscribe to.
        self._watch = SequenceWatch() if set(handlers).issuperset(set(EVENTS) - set(_NOT_ON_THE_BUS)) else None
        self._housekeeper = self._new_housekeeper()
        if self._tidies_itself:
            await self._housekeeper.start()
        if handlers:
            streams = {stream: event_type for event_type in handlers for stream in self._streams.streams(event_type)}
            step = wrap(self._layers, CallHandlers(handlers))
            self._consumer = Consumer(
                self._source, step, streams=streams, clock=self._clock, options=self._options, watch=self._watch
            )
            if self._metrics is not None:
                self._metrics.watch_consumer(
                    lag_seconds=lambda: self.progress().lag_seconds,
                    pending_events=lambda: float(self.progress().pending),
                )
            await self._consumer.start()

    async def stop(self) -> None:
        """Stop reading, finish what is in hand, release the rest. A stopped bus still publishes."""
        if self._consumer is not None:
            await self._consumer.stop()
        if self._housekeeper is not None:
            await self._housekeeper.stop()
        await self._publisher.stop()

    async def tidy(self) -> None:
        """Trim streams and look for losses now, as the bus does from time to time while it runs.

        Raises:
            ConnectionLostError: The store cannot be reached.
        """
        if self._housekeeper is None:
            self._housekeeper = self._new_housekeeper()
        await self._housekeeper.tidy()

    async def history(
        self, pattern: str, *, since: datetime | str, until: datetime | None = None
    ) -> AsyncIterator[Event[Any]]:
        """Yield the events that still lie in the streams, type by type, oldest first; nothing is consumed by it.

        Args:
            pattern: Event types, as in ``subscribe``.
            since: Wall time of the first event, or an entry id, which only makes sense with one event type.
            until: Wall time of the last one; None is now.

        Raises:
            ConfigurationError: No event type matches.
            ConnectionLostError: The store cannot be reached.
        """
        for stream in self._streams_of(pattern):
            begin = since if isinstance(since, str) else self._history.id_at(since)
            end = "+" if until is None else self._history.id_at(until)
            while page := await self._history.entries(stream, since=begin, until=end, limit=_PAGE):
                for entry in page:
                    try:
                        yield decode(entry.fields)
                    except DecodeError as error:
                        log.warning("unreadable_entry_skipped", entry_id=entry.entry_id, reason=str(error))
                begin = f"({page[-1].entry_id}"

    async def rewind(self, pattern: str, *, to: datetime | str, service: str | None = None) -> list[str]:
        """Let ``service`` (this one when None) read again from ``to`` on, at its next read; return what it reads.

        Its handlers must be idempotent, as always; an instance that runs skips what it handled a moment ago.

        Raises:
            ConfigurationError: No event type matches, or the service consumes none of them.
            ConnectionLostError: The store cannot be reached.
        """
        begin = to if isinstance(to, str) else self._history.id_at(to)
        who = service or self._service
        streams = await self._history.rewind(self._streams_of(pattern), service=who, to=begin)
        if not streams:
            raise ConfigurationError(f"{who} consumes none of {pattern!r}, so there is nothing to read again")
        return list(dict.fromkeys(event_type_of(stream) for stream in streams))

    def progress(self) -> BusProgress:
        """Return how consuming goes, for heartbeats."""
        if self._consumer is None:
            return BusProgress(pending=0, processed_last_minute=0, last_event_id=None, lag_seconds=0.0)
        return self._consumer.progress()

    @property
    def storage_alarm(self) -> str | None:
        """Why events may not be kept if the store went away now; None when all is well."""
        return self._buffer.alarm if self._buffer is not None else None

    def _streams_of(self, pattern: str) -> list[str]:
        event_types = _matching(pattern)
        if not event_types:
            raise ConfigurationError(f"no event type matches {pattern!r}; known: {', '.join(EVENTS)}")
        return [stream for event_type in event_types for stream in self._streams.streams(event_type)]

    def _new_housekeeper(self) -> Housekeeper:
        return Housekeeper(
            self._keeper,
            streams=[
                stream
                for event_type in EVENTS
                if event_type not in _NOT_ON_THE_BUS
                for stream in self._streams.streams(event_type)
            ],
            service=self._service,
            clock=self._clock,
            rule=self._housekeeping,
            alarm=self._raise_alarm,
            buffer=self._buffer,
            watch=self._watch,
            on_gap=self._count_gap,
            on_length=self._metrics.stream_length if self._metrics is not None else _ignore_length,
        )

    async def _raise_alarm(self, component: str, message: str) -> None:
        log.critical("bus_alarm", component=component, message=message)
        alert = SystemAlertPayload(
            alert_type="REDIS_ERROR",
            severity="CRITICAL",
            message=message,
            component=component,
            auto_recovery_attempted=False,
        )
        try:
            await self.publish("system.alert", alert)
        except TransientError as error:
            log.warning("alarm_not_published", reason=str(error))

    def _count_gap(self, gap: Gap) -> None:
        if self._metrics is not None:
            self._metrics.events_missing(gap.count)

    def _count_published(self, count: int) -> None:
        if self._housekeeper is not None:
            self._housekeeper.published(count)

    def _require_not_started(self, what: str) -> None:
        if self._started:
            raise ConfigurationError(f"{what} after the bus was started: build a new bus, or call it before")


def _ignore_length(_stream: str, _entries: int) -> None:
    """Nobody counts."""


def _handlers_by_type(subscriptions: Sequence[tuple[str, Handler]]) -> Mapping[str, tuple[Handler, ...]]:
    """Return the handlers of every subscribed type, in order of subscription; types in order of the catalogue."""
    table = {
        event_type: tuple(handler for pattern, handler in subscriptions if fnmatchcase(event_type, pattern))
        for event_type in EVENTS
    }
    return {event_type: handlers for event_type, handlers in table.items() if handlers}


def _matching(pattern: str) -> list[str]:
    return [event_type for event_type in EVENTS if fnmatchcase(event_type, pattern)]
