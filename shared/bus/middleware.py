"""What happens around every try, as one ordered list: trace, report, verdict, refusal of late commands, handlers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, assert_never

import structlog

from shared.bus.delivery import Delivery
from shared.bus.delivery_policy import ACK, Ack, DeadLetter, DeliveryPolicy, Refused, Retry, Verdict
from shared.bus.event_bus import Handler
from shared.clock import Clock
from shared.errors import CommandExpiredError, ConnectionLostError, DecodeError, TransientError
from shared.events.envelope import Event
from shared.events.registry import EventKind, spec_for
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import Spans
from shared.telemetry.trace import TraceContext, use_trace

log = structlog.get_logger(__name__)

#: Makes one try and says what becomes of the delivery.
Step = Callable[[Delivery], Awaitable[Verdict]]


class Middleware(Protocol):
    """A layer around the inner steps: it returns their verdict, or its own, or raises."""

    def __call__(self, delivery: Delivery, inner: Step, /) -> Awaitable[Verdict]: ...


def wrap(layers: Sequence[Middleware], innermost: Step) -> Step:
    """Return ``innermost`` inside ``layers``, the first one outermost."""
    step = innermost
    for layer in reversed(layers):
        step = _layered(layer, step)
    return step


def _layered(layer: Middleware, inner: Step) -> Step:
    def step(delivery: Delivery) -> Awaitable[Verdict]:
        return layer(delivery, inner)

    return step


async def work_under_trace(delivery: Delivery, inner: Step) -> Verdict:
    """Let what is published and logged inside inherit the trace, with this event as its cause."""
    if isinstance(delivery.content, DecodeError):
        return await inner(delivery)
    metadata = delivery.content.metadata
    with use_trace(TraceContext(metadata.trace_id, causation_id=metadata.event_id)):
        return await inner(delivery)


class SpanOfTry:
    """Shows every try in the tracing system."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    async def __call__(self, delivery: Delivery, inner: Step) -> Verdict:
        if isinstance(delivery.content, DecodeError):
            return await inner(delivery)
        with self._spans.handle(delivery.content) as span:
            verdict = await inner(delivery)
            span.end_as(_outcome(verdict), None if isinstance(verdict, Ack) else verdict.reason)
            return verdict


class Report:
    """Counts every verdict, and logs each that is not a plain success."""

    def __init__(self, clock: Clock, metrics: Metrics | None) -> None:
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, delivery: Delivery, inner: Step) -> Verdict:
        began = self._clock.monotonic()
        verdict = await inner(delivery)
        if self._metrics is not None:
            seconds = self._clock.monotonic() - began
            self._metrics.event_consumed(delivery.event_type, _outcome(verdict), seconds)
        if not isinstance(verdict, Ack):
            _log(delivery, verdict)
        return verdict


def _outcome(verdict: Verdict) -> str:
    match verdict:
        case Ack():
            return "ack"
        case Refused():
            return "expired"
        case Retry():
            return "retry"
        case DeadLetter():
            return "dead_letter"
        case _:
            assert_never(verdict)


def _log(delivery: Delivery, verdict: Refused | Retry | DeadLetter) -> None:
    entry = delivery.entry
    facts = {"stream": entry.stream, "entry_id": entry.entry_id, "attempt": entry.attempt, "reason": verdict.reason}
    match verdict:
        case Refused():
            log.info("late_command_refused", **facts)
        case Retry():
            log.warning("handler_failed", retry_in_seconds=verdict.delay_seconds, **facts)
        case DeadLetter():
            log.error("dead_letter", **facts)


class Judge:
    """Lets the policy decide: whether a try may begin, and what follows from how it ended."""

    def __init__(self, policy: DeliveryPolicy) -> None:
        self._policy = policy

    async def __call__(self, delivery: Delivery, inner: Step) -> Verdict:
        if refusal := self._policy.before(delivery.entry.attempt):
            return refusal
        try:
            if isinstance(delivery.content, DecodeError):
                raise delivery.content
            return await inner(delivery)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            error: Exception = TransientError("something that a handler waited for was cancelled")
        except Exception as raised:  # noqa: BLE001 - the policy decides what an error means
            error = raised
        delivery.outages = delivery.outages + 1 if isinstance(error, ConnectionLostError) else 0
        return self._policy.after(error, attempt=delivery.entry.attempt, outages=delivery.outages)


class SkipRepeated:
    """Acknowledges at once what this instance handled a moment ago: a producer that lost the answer publishes again.

    It spares work, and proves nothing: that an effect happens once is proven in storage, with the effect itself.
    """

    def __init__(self, remember: int) -> None:
        self._remember = remember
        # Ordered: a plain dict takes longer and longer to find its oldest key when the oldest are removed.
        self._handled: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, delivery: Delivery, inner: Step) -> Verdict:
        assert not isinstance(delivery.content, DecodeError)
        event_id = delivery.content.metadata.event_id
        if event_id in self._handled:
            log.debug("repeated_event_skipped", event_id=event_id)
            return ACK
        verdict = await inner(delivery)
        self._handled[event_id] = None
        if len(self._handled) > self._remember:
            self._handled.popitem(last=False)
        return verdict


class RefuseLateCommands:
    """Keeps late commands from the handlers: acting on a stale wish is worse than not acting.

    A command says itself until when it holds (``expires_at``, market time). Whatever it says, it is late when its
    age by the wall clock exceeds the catalogue's lifetime, because market time never runs slower than the wall.
    """

    def __init__(self, *, clock: Clock, market_clock: Clock, on_expired: Callable[[], Handler | None]) -> None:
        self._clock = clock
        self._market_clock = market_clock
        self._on_expired = on_expired

    async def __call__(self, delivery: Delivery, inner: Step) -> Verdict:
        assert not isinstance(delivery.content, DecodeError)
        lateness = self._lateness(delivery.content)
        if lateness is None:
            return await inner(delivery)
        on_expired = self._on_expired()
        if on_expired is not None:
            await on_expired(delivery.content)
        raise CommandExpiredError(lateness)

    def _lateness(self, event: Event[Any]) -> str | None:
        spec = spec_for(event.metadata.event_type)
        if spec.kind is not EventKind.COMMAND:
            return None
        expires_at: datetime | None = getattr(event.payload, "expires_at", None)
        if expires_at is not None and expires_at < (now := self._market_clock.now()):
            return f"it expired at {expires_at.isoformat()}, it is {now.isoformat()} market time"
        if spec.ttl_seconds is None:
            return None
        age_seconds = (self._clock.now() - event.metadata.timestamp).total_seconds()
        if age_seconds > spec.ttl_seconds:
            return f"it is {age_seconds:.1f} s old, {spec.ttl_seconds:g} s are allowed"
        return None


class CallHandlers:
    """The innermost step: the handlers of the event's type, in order of subscription, settled as one."""

    def __init__(self, handlers: Mapping[str, tuple[Handler, ...]]) -> None:
        self._handlers = handlers

    async def __call__(self, delivery: Delivery) -> Verdict:
        assert not isinstance(delivery.content, DecodeError)
        for handler in self._handlers[delivery.event_type]:
            await handler(delivery.content)
        return ACK
