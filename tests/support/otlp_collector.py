"""An OpenTelemetry collector in a thread: takes spans over OTLP and HTTP, and can be told to hang or to refuse."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it arrived."""

    name: str
    service: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    is_error: bool
    message: str
    seconds: float


class OtlpCollector:
    """Use as a context manager.

    Attributes:
        spans: What arrived so far.
        headers: Headers of the newest request.
        bodies: Raw bodies of all requests.
        status: Answered from now on.
        gate: Requests wait for it; cleared, the collector hangs.
    """

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.headers: dict[str, str] = {}
        self.bodies: list[bytes] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def named(self, name: str) -> ReceivedSpan:
        """Return the one span of that name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.gate.wait()
                if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
                    collector.status = 404
                if collector.status == 200:
                    collector.take(body, dict(self.headers))
                answer = ExportTraceServiceResponse().SerializeToString()
                with suppress(ConnectionError):  # who asked may have given up
                    self.send_response(collector.status)
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        return Handler

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        """Read one request."""
        self.bodies.append(body)
        self.headers = headers
        request = ExportTraceServiceRequest.FromString(body)
        for resource_spans in request.resource_spans:
            resource = {pair.key: pair.value.string_value for pair in resource_spans.resource.attributes}
            for scope in resource_spans.scope_spans:
                self.spans += [_received(span, resource["service.name"]) for span in scope.spans]


def _received(span: WireSpan, service: str) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        service=service,
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes={pair.key: pair.value.string_value for pair in span.attributes},
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message,
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
    )
