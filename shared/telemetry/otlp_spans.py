"""Spans to an OpenTelemetry collector, over OTLP and HTTP; the one module that knows OpenTelemetry.

Finished spans wait in a bounded queue for a thread that sends them in batches. When the collector is slow or away the
oldest go lost; nothing here waits for it.
"""

from __future__ import annotations

import asyncio
import threading
import zlib
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, TracebackType
from urllib.parse import unquote, urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from shared.clock import Clock
from shared.errors import ConfigurationError
from shared.telemetry.masking import mask_text
from shared.telemetry.spans import NO_SPAN, Span, SpanStart, span_number, trace_number

_KINDS = MappingProxyType(
    {
        "producer": trace.SpanKind.PRODUCER,
        "consumer": trace.SpanKind.CONSUMER,
        "client": trace.SpanKind.CLIENT,
        "server": trace.SpanKind.SERVER,
        "internal": trace.SpanKind.INTERNAL,
    }
)
#: These begin in another process than what caused them.
_ARRIVING = frozenset({"consumer", "server"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Spans that wait to be sent; at most 20 MB.
_QUEUE = 8192
_BATCH = 512
_SEND_EVERY_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
_CLOSE_SECONDS = 3.0

#: The span that the running task works in.
_active: ContextVar[SpanContext | None] = ContextVar("quantum_span", default=None)
#: What the span that is just being made shall be called: trace and span.
_chosen: ContextVar[tuple[int, int | None]] = ContextVar("quantum_span_ids")


class OtlpSpans:
    """``SpanSink`` over OpenTelemetry's SDK, with ids that follow from ours."""

    def __init__(
        self,
        service: str,
        *,
        instance: str,
        clock: Clock,
        endpoint: str,
        headers: str = "",
        sample_ratio: float = 1.0,
        send_every_seconds: float = _SEND_EVERY_SECONDS,
        answer_seconds: float = _ANSWER_SECONDS,
        close_seconds: float = _CLOSE_SECONDS,
    ) -> None:
        """Prepare, without connecting; a thread begins to wait for spans.

        Args:
            service: Name of the service, on every span.
            instance: Name of this process.
            clock: Wall clock.
            endpoint: Base URL of the collector.
            headers: Sent along, as ``name=value,name=value``.
            sample_ratio: Share of the traces that is sent, 0 to 1.
            send_every_seconds: Longest time that a finished span waits for others.
            answer_seconds: Longest wait for one answer of the collector.
            close_seconds: Longest wait for the rest at the end.

        Raises:
            ConfigurationError: The endpoint is no URL, or the headers are not of that form.
        """
        exporter = OTLPSpanExporter(
            endpoint=f"{_require_url(endpoint).rstrip('/')}/v1/traces",
            headers=_headers(headers),
            timeout=answer_seconds,
        )
        self._clock = clock
        self._close_seconds = close_seconds
        self._sampled_below = sample_ratio * 2**32
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": service, "service.instance.id": instance}),
            shutdown_on_exit=False,  # it would hold up the end of the process for as long as the collector hangs
            id_generator=_ChosenIds(),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=_QUEUE,
                max_export_batch_size=_BATCH,
                schedule_delay_millis=send_every_seconds * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("quantum-trader")

    def open(self, start: SpanStart) -> AbstractContextManager[Span]:
        """Return the block that is the span; one that shows nowhere when its trace is not among the sampled."""
        if zlib.crc32(start.trace_id.encode("utf-8", "replace")) >= self._sampled_below:
            return NO_SPAN
        return _OtlpSpan(self._tracer, start, self._clock)

    async def close(self) -> None:
        """Send what waits, for a few seconds at most; a collector that hangs is left behind with its thread."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send_rest() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=send_rest, name="spans-close", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds):
                await sent.wait()


class _OtlpSpan:
    """One span, from the beginning of its block to the end."""

    __slots__ = ("_began", "_began_ns", "_clock", "_outcome", "_span", "_start", "_token", "_tracer", "_why")

    def __init__(self, tracer: trace.Tracer, start: SpanStart, clock: Clock) -> None:
        self._tracer = tracer
        self._start = start
        self._clock = clock
        self._outcome: str | None = None
        self._why: str | None = None

    def __enter__(self) -> Span:
        start = self._start
        self._began = self._clock.monotonic()
        self._began_ns = (self._clock.now() - _EPOCH) // timedelta(microseconds=1) * 1000
        trace_id = trace_number(start.trace_id)
        parent = _parent(start, trace_id)
        _chosen.set((trace_id, span_number(start.announces) if start.announces else None))
        self._span = self._tracer.start_span(
            start.name,
            # An empty context has no parent: without one the SDK would look for a span of its own.
            trace.set_span_in_context(NonRecordingSpan(parent), Context()) if parent else Context(),
            _KINDS[start.kind],
            dict(start.attributes),
            start_time=self._began_ns,
        )
        self._token: Token[SpanContext | None] = _active.set(self._span.get_span_context())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _active.reset(self._token)
        if isinstance(error, Exception):
            self.end_as(self._outcome or "error", f"{type(error).__name__}: {error}")
        self._span.set_attribute("outcome", self._outcome or ("ok" if error is None else "cancelled"))
        if self._why is not None:
            self._span.set_status(Status(StatusCode.ERROR, mask_text(self._why)))
        self._span.end(self._began_ns + int((self._clock.monotonic() - self._began) * 1e9))

    def end_as(self, outcome: str, error: str | None = None) -> None:
        self._outcome, self._why = outcome, error


def _parent(start: SpanStart, trace_id: int) -> SpanContext | None:
    """Return the span that the work goes on in, else the one that brought its cause into the world."""
    active = _active.get()
    if active is not None and active.trace_id == trace_id and start.kind not in _ARRIVING:
        return active
    if start.causation_id is None:
        return None
    return SpanContext(
        trace_id, span_number(start.causation_id), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


class _ChosenIds(RandomIdGenerator):
    """Gives a span the ids that were chosen for it; one that nobody refers to gets a random one."""

    def generate_trace_id(self) -> int:
        return _chosen.get()[0]

    def generate_span_id(self) -> int:
        return _chosen.get()[1] or super().generate_span_id()


def _require_url(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("OTEL_EXPORTER_OTLP_ENDPOINT is wrong: must be a URL such as http://127.0.0.1:4318")
    return endpoint


def _headers(text: str) -> dict[str, str]:
    headers = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigurationError("OTEL_EXPORTER_OTLP_HEADERS is wrong: must be name=value,name=value")
        headers[name.strip()] = unquote(value.strip())
    return headers
