"""Calls commands of other services: one inbox per process, answers matched by request id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import DecodeError, InvalidInputError, NotRunningError, TransientError
from shared.ids import IdSource
from shared.rpc.messages import (
    Fields,
    RPCRequest,
    RPCResponse,
    decode_response,
    encode_request,
    require_address,
)
from shared.rpc.transport import RpcTransport
from shared.telemetry.metrics import Metrics
from shared.telemetry.trace import current_trace

log = structlog.get_logger(__name__)


class RpcClient:
    """A component that asks other services.

    Attributes:
        name: Component name.
    """

    name = "rpc-client"

    def __init__(
        self,
        transport: RpcTransport,
        *,
        service: str,
        instance: str,
        clock: Clock,
        ids: IdSource,
        backoff: Backoff | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare, without listening.

        Args:
            transport: Carries the messages.
            service: Name of the calling service.
            instance: Name of this process, unique in the service.
            clock: Wall clock.
            ids: Source of request and trace ids.
            backoff: Delays between tries while the transport is away.
            metrics: Counts the calls.

        Raises:
            InvalidInputError: ``service`` or ``instance`` cannot name an inbox.
        """
        require_address(service, instance)
        self._channel = transport.caller(service, instance)
        self._service = service
        self._instance = instance
        self._clock = clock
        self._ids = ids
        self._backoff = backoff or Backoff(base_seconds=0.05, factor=2.0, cap_seconds=2.0)
        self._metrics = metrics
        self._sequence = 0
        self._waiting: dict[str, asyncio.Future[RPCResponse]] = {}
        self._reader: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait for their answer."""
        return len(self._waiting)

    async def start(self) -> None:
        """Open the inbox and begin to read it."""
        await self._channel.open()
        self._reader = asyncio.create_task(self._read_answers(), name="rpc-client")

    async def stop(self) -> None:
        """Stop reading; calls that still wait end with the error code ``CLIENT_STOPPED``."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await end_task(reader)
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_result(RPCResponse("ERROR", error_code="CLIENT_STOPPED", error_message="the caller stopped"))
        with suppress(TransientError):
            await self._channel.close()

    async def call(
        self,
        *,
        service: str,
        command: str,
        parameters: Mapping[str, Any] | None = None,
        timeout: float,
        request_id: str | None = None,
    ) -> RPCResponse:
        """Ask ``service`` to run ``command`` and wait for the answer.

        A lost connection is tried again, with the same request id, for as long as the timeout allows. After TIMEOUT
        nobody knows whether the command was run: call again with the same ``request_id`` to get the result of the
        first run instead of a second one.

        Args:
            service: Service that answers, for example ``exec-risk-service``.
            command: Command from ``shared.rpc.commands``.
            parameters: JSON object of its request model.
            timeout: Longest wait for the answer, seconds, above 0.
            request_id: Given when an earlier call is repeated; otherwise new.

        Raises:
            InvalidInputError: The parameters cannot travel, or ``request_id`` is waited for already.
            NotRunningError: The client was not started.
        """
        if self._reader is None:
            raise NotRunningError(f"RPC {command!r}: the client is not started")
        request = self._request(service, command, parameters or {}, timeout, request_id)
        if request.request_id in self._waiting:
            raise InvalidInputError(f"request id {request.request_id!r} is waited for already; wait for that call")
        began = self._clock.monotonic()
        response = await self._exchange(request, timeout)
        if self._metrics is not None:
            self._metrics.rpc_called(service, response.status, self._clock.monotonic() - began)
        return response

    async def _exchange(self, request: RPCRequest, timeout: float) -> RPCResponse:
        fields = encode_request(request)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[RPCResponse] = loop.create_future()
        self._waiting[request.request_id] = reply
        deadline = loop.time() + timeout
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._send(request.service_target, fields)
            # Not inside the timeout above: a send can swallow the cancellation that ends it (see end_task).
            await asyncio.wait({reply}, timeout=max(0.0, deadline - loop.time()))
            return reply.result() if reply.done() else _timed_out(request)
        finally:
            del self._waiting[request.request_id]

    def _request(
        self, service: str, command: str, parameters: Mapping[str, Any], timeout: float, request_id: str | None
    ) -> RPCRequest:
        trace = current_trace()
        self._sequence += 1
        return RPCRequest(
            request_id=request_id or self._ids.new(),
            service_target=service,
            command=command,
            parameters=parameters,
            timeout_seconds=timeout,
            source=self._service,
            instance=self._instance,
            timestamp=self._clock.now(),
            sequence=self._sequence,
            trace_id=trace.trace_id if trace else self._ids.new(),
            causation_id=trace.causation_id if trace else None,
        )

    async def _send(self, service: str, fields: Fields) -> None:
        failures = 0
        while True:
            try:
                return await self._channel.send(service, fields)
            except TransientError as error:
                failures += 1
                log.warning("rpc_send_failed", target=service, error=str(error), failures=failures)
                await self._clock.sleep(self._backoff.delay(failures))

    async def _read_answers(self) -> None:
        failures = 0
        while True:
            try:
                answers = await self._channel.receive()
                failures = 0
            except TransientError as error:
                failures += 1
                log.warning("rpc_inbox_unreachable", error=str(error), failures=failures)
                await self._clock.sleep(self._backoff.delay(failures))
                continue
            for fields in answers:
                self._hand_over(fields)

    def _hand_over(self, fields: Fields) -> None:
        try:
            request_id, response = decode_response(fields)
        except DecodeError as error:
            log.error("rpc_answer_unreadable", error=str(error))
            return
        reply = self._waiting.get(request_id)
        if reply is None or reply.done():
            log.debug("rpc_answer_late", request_id=request_id)  # its caller gave up, or has it already
            return
        reply.set_result(response)


def _timed_out(request: RPCRequest) -> RPCResponse:
    return RPCResponse(
        "TIMEOUT",
        error_code="TIMEOUT",
        error_message=(
            f"{request.service_target} did not answer {request.command} within {request.timeout_seconds:g} s; "
            "it may still have run"
        ),
    )
