"""What a trace looks like in a tracing system: one span per event published and handled, per RPC call, per order sent.

Off unless a collector is configured (``OTEL_EXPORTER_OTLP_ENDPOINT``); then ``shared/telemetry/otlp_spans.py`` is
loaded, and OpenTelemetry with it. Losing spans is allowed, holding up or failing the work is not.

Ids follow from ours, so that processes agree without telling each other: the trace's from ``trace_id``, a span's from
the id of the event or request that it brings into the world, its parent's from ``causation_id``.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, TypeAlias

from shared.clock import Clock
from shared.errors import ConfigurationError
from shared.events.envelope import Event

#: OpenTelemetry's words: an event goes out or comes in, a request goes out or comes in, or neither.
SpanKind: TypeAlias = Literal["producer", "consumer", "client", "server", "internal"]


class Span(Protocol):
    """A piece of work that is going on."""

    def end_as(self, outcome: str, error: str | None = None) -> None:
        """Say what came of it, and why when it failed; without this it is ``ok``, or the exception that ended it."""
        ...


class _NoSpan:
    """The span of a process that sends none."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing began."""

    def end_as(self, outcome: str, error: str | None = None) -> None:
        """Nobody wants to know."""


#: Work that shows nowhere.
NO_SPAN: AbstractContextManager[Span] = _NoSpan()


@dataclass(frozen=True, slots=True)
class SpanStart:
    """What is known of a span when it begins.

    Attributes:
        name: Short, and the same for all of its sort: ``handle candle.closed``.
        kind: Which way things go.
        trace_id: Our trace id.
        announces: Id of the event or request that it brings into the world, whose consequences become its children.
        causation_id: Id of the event or request that it follows from; None at the root of a trace.
        attributes: Further facts.
    """

    name: str
    kind: SpanKind
    trace_id: str
    announces: str | None = None
    causation_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


class SpanSink(Protocol):
    """Where spans go."""

    def open(self, start: SpanStart) -> AbstractContextManager[Span]:
        """Return the block that is the span; never raises and never waits."""
        ...

    async def close(self) -> None:
        """Send what is left, but do not wait long for it."""
        ...


class Spans:
    """Says what the spans of this project are; also a service component, whose stop sends the rest.

    Attributes:
        name: Component name.
    """

    name = "spans"

    def __init__(self, sink: SpanSink | None = None) -> None:
        """Prepare.

        Args:
            sink: Where spans go; None makes everything here cost next to nothing.
        """
        self._sink = sink

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return self._sink is not None

    async def start(self) -> None:
        """Nothing to do: the first span opens the connection."""

    async def stop(self) -> None:
        if self._sink is not None:
            await self._sink.close()

    def publish(
        self, event_type: str, *, event_id: str, trace_id: str, causation_id: str | None, symbol: str | None = None
    ) -> AbstractContextManager[Span]:
        """Return the span of publishing one event; ``symbol`` is the market it is about, if any."""
        if self._sink is None:
            return NO_SPAN
        facts = _without_none(event_type=event_type, event_id=event_id, symbol=symbol)
        return self._sink.open(
            SpanStart(f"publish {event_type}", "producer", trace_id, event_id, causation_id, attributes=facts)
        )

    def handle(self, event: Event[Any]) -> AbstractContextManager[Span]:
        """Return the span of one try to handle ``event``."""
        if self._sink is None:
            return NO_SPAN
        metadata = event.metadata
        facts = _without_none(
            event_type=metadata.event_type,
            event_id=metadata.event_id,
            symbol=getattr(event.payload, "symbol", None),
            source=metadata.source,
        )
        name = f"handle {metadata.event_type}"
        start = SpanStart(name, "consumer", metadata.trace_id, causation_id=metadata.event_id, attributes=facts)
        return self._sink.open(start)

    def call(
        self, target: str, command: str, *, request_id: str, trace_id: str, causation_id: str | None
    ) -> AbstractContextManager[Span]:
        """Return the span of one RPC call, from the request to its answer."""
        if self._sink is None:
            return NO_SPAN
        facts = _without_none(rpc_target=target, rpc_command=command, request_id=request_id)
        return self._sink.open(
            SpanStart(f"call {command}", "client", trace_id, request_id, causation_id, attributes=facts)
        )

    def serve(self, command: str, *, request_id: str, trace_id: str, source: str) -> AbstractContextManager[Span]:
        """Return the span of answering one RPC request of the service ``source``."""
        if self._sink is None:
            return NO_SPAN
        facts = _without_none(rpc_command=command, request_id=request_id, source=source)
        return self._sink.open(
            SpanStart(f"serve {command}", "server", trace_id, causation_id=request_id, attributes=facts)
        )

    def send_order(
        self,
        *,
        client_order_id: str,
        symbol: str,
        side: str,
        order_type: str,
        trace_id: str,
        causation_id: str | None,
    ) -> AbstractContextManager[Span]:
        """Return the span of one order request to the exchange."""
        if self._sink is None:
            return NO_SPAN
        facts = _without_none(client_order_id=client_order_id, symbol=symbol, side=side, order_type=order_type)
        return self._sink.open(SpanStart("send order", "client", trace_id, causation_id=causation_id, attributes=facts))


#: Spans that go nowhere.
NO_SPANS = Spans()


def create_spans(
    service: str, *, instance: str, clock: Clock, endpoint: str | None, headers: str = "", sample_ratio: float = 1.0
) -> Spans:
    """Return spans that go to the collector at ``endpoint``, or nowhere when there is none.

    Args:
        service: Name of the service, on every span.
        instance: Name of this process.
        clock: Wall clock.
        endpoint: Base URL of an OTLP collector, for example ``http://127.0.0.1:4318``; None sends nothing.
        headers: Sent along, as ``name=value,name=value``; a secret, usually.
        sample_ratio: Share of the traces that is sent, 0 to 1; the same ones in every process.

    Raises:
        ConfigurationError: The endpoint is no URL, the headers are not of that form, or OpenTelemetry is missing.
    """
    if not endpoint:
        return NO_SPANS
    try:
        from shared.telemetry.otlp_spans import OtlpSpans
    except ImportError as error:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name} is not installed; "
            "install quantum-trader[otel] or remove the setting"
        ) from error
    return Spans(
        OtlpSpans(
            service, instance=instance, clock=clock, endpoint=endpoint, headers=headers, sample_ratio=sample_ratio
        )
    )


def trace_number(trace_id: str) -> int:
    """Return the 128-bit id of our trace: a UUID's own bits, so that it can be searched for, else a hash."""
    try:
        number = uuid.UUID(trace_id).int
    except ValueError:
        number = 0
    return number or _hash(trace_id, 16)


def span_number(announced_id: str) -> int:
    """Return the 64-bit id of the span that brought this event or request into the world."""
    return _hash(announced_id, 8)


def _hash(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:size]) or 1


def _without_none(**facts: str | None) -> dict[str, str]:
    return {name: value for name, value in facts.items() if value is not None}
