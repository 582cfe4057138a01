"""The event bus over any stream store: publisher, consumer, and the table of who listens to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from shared.bus.consumer import Consumer, ConsumerOptions
from shared.bus.event_bus import Handler
from shared.bus.middleware import (
    CallHandlers,
    Judge,
    Middleware,
    RefuseLateCommands,
    Report,
    work_under_trace,
    wrap,
)
from shared.bus.progress import BusProgress
from shared.bus.publisher import Publisher
from shared.bus.transport import Appender, EntrySource
from shared.clock import Clock
from shared.errors import ConfigurationError
from shared.events.envelope import Event, EventPayload
from shared.events.registry import EVENTS
from shared.ids import IdSource
from shared.telemetry.metrics import Metrics


class StreamBus:
    """``EventBus`` over an ``Appender`` and an ``EntrySource``; also a service component.

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
        clock: Clock,
        market_clock: Clock,
        ids: IdSource,
        options: ConsumerOptions,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare, without consuming; publishing works at once.

        Args:
            appender: Where events are published to.
            source: Where they come from.
            service: Name of the service: ``source`` of what it publishes, consumer group of what it reads.
            clock: Wall clock: timestamps, delays, age of commands.
            market_clock: Market time: ``expires_at`` of commands.
            ids: New event and trace ids.
            options: Bounds and times of the consumer.
            metrics: Counters of the process.
        """
        self._publisher = Publisher(appender, service=service, clock=clock, ids=ids, metrics=metrics)
        self._source = source
        self._clock = clock
        self._options = options
        self._subscriptions: list[tuple[str, Handler]] = []
        self._on_expired: Handler | None = None
        self._consumer: Consumer | None = None
        self._layers: tuple[Middleware, ...] = (
            work_under_trace,
            Report(clock, metrics),
            Judge(options.policy),
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
        """Consume what was subscribed to; see ``EventBus.start``."""
        self._require_not_started("start")
        handlers = _handlers_by_type(self._subscriptions)
        if not handlers:
            return
        step = wrap(self._layers, CallHandlers(handlers))
        self._consumer = Consumer(
            self._source, step, event_types=list(handlers), clock=self._clock, options=self._options
        )
        await self._consumer.start()

    async def stop(self) -> None:
        """Stop reading, finish what is in hand, release the rest. A stopped bus still publishes."""
        if self._consumer is not None:
            await self._consumer.stop()

    def progress(self) -> BusProgress:
        """Return how consuming goes, for heartbeats."""
        if self._consumer is None:
            return BusProgress(pending=0, processed_last_minute=0, last_event_id=None, lag_seconds=0.0)
        return self._consumer.progress()

    def _require_not_started(self, what: str) -> None:
        if self._consumer is not None:
            raise ConfigurationError(f"{what} after the bus was started: build a new bus, or call it before")


def _handlers_by_type(subscriptions: Sequence[tuple[str, Handler]]) -> Mapping[str, tuple[Handler, ...]]:
    """Return the handlers of every subscribed type, in order of subscription; types in order of the catalogue."""
    table = {
        event_type: tuple(handler for pattern, handler in subscriptions if fnmatchcase(event_type, pattern))
        for event_type in EVENTS
    }
    return {event_type: handlers for event_type, handlers in table.items() if handlers}


def _matching(pattern: str) -> list[str]:
    return [event_type for event_type in EVENTS if fnmatchcase(event_type, pattern)]
