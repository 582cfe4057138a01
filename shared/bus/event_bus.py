"""The port: publish events, subscribe handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from shared.events.envelope import Event, EventPayload

#: A handler returns when the event is dealt with; an exception asks the delivery policy what to do.
Handler = Callable[[Event[Any]], Awaitable[None]]


class EventBus(Protocol):
    """At-least-once delivery to one consumer group per service; a handler may see an event twice."""

    async def publish(
        self,
        event_type: str,
        payload: EventPayload,
        *,
        trace_id: str | None = None,
        causation_id: str | None = None,
        event_id: str | None = None,
    ) -> Event[Any]:
        """Append one event to its stream.

        Inside a handler ``trace_id`` and ``causation_id`` default to those of the event in hand; outside, a new trace
        begins. ``event_id`` is given where the same cause must give the same event (derived ids); otherwise it is new.

        Raises:
            InvalidInputError: The payload is not the registered model of ``event_type``.
            ConnectionLostError: The broker cannot be reached; the event may or may not have been appended.
            TransientError: The broker refused, for example because its memory is full.
        """
        ...

    def subscribe(self, pattern: str, handler: Handler) -> None:
        """Deliver events whose type matches ``pattern`` (``signal.generated``, ``position.*``, ``*``) to ``handler``.

        Must be called before ``start``. Several handlers on one event run in the order of subscription and settle
        as one. Events of one key (symbol, service, model; else the type) are handled in order, also while one of them
        waits for its next try; different keys run concurrently.
        """
        ...

    async def start(self) -> None:
        """Create the consumer groups, re-read what this instance left pending, begin to consume."""
        ...

    async def stop(self) -> None:
        """Stop reading, finish what is in hand, release the rest."""
        ...
