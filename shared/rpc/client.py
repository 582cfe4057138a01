"""Calls commands of other services: one inbox per process, answers matched by request id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import structlog
from pydantic import ValidationError

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import (
    DeadlineExceededError,
    DecodeError,
    InvalidInputError,
    NotRunningError,
    RpcError,
    TransientError,
)
from shared.ids import IdSource
from shared.rpc.codec import encode_cancellation, encode_request
from shared.rpc.commands import COMMANDS, CommandSpec, Question, ResultT, commands_by_question
from shared.rpc.deadline import seconds_left
from shared.rpc.guard import MessageGuard
from shared.rpc.lane import Lane
from shared.rpc.messages import (
    Cancellation,
    Fields,
    RPCRequest,
    RPCResponse,
    error_response,
    require_address,
    require_request_id,
)
from shared.rpc.refusals import Cause, Refusal, Refusals
from shared.rpc.signing import Signer
from shared.rpc.transport import RpcTransport
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import NO_SPANS, Spans
from shared.telemetry.trace import current_trace

#: How long ``stop`` waits until servers are told what is no longer waited for.
_FAREWELL_SECONDS = 1.0
#: Of so many failures in a row one is told.
_FAILURES_PER_LINE = 30

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """A call whose answer is waited for."""

    request: RPCRequest
    reply: asyncio.Future[RPCResponse]
    lane: Lane


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
        commands: Mapping[str, CommandSpec] = COMMANDS,
        signer: Signer | None = None,
        metrics: Metrics | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        """Prepare, without listening.

        Args:
            transport: Carries the messages.
            service: Name of the calling service.
            instance: Name of this process, unique in the service.
            clock: Wall clock.
            ids: Source of request ids.
            backoff: Delays between tries while the transport is away.
            commands: All commands that exist.
            signer: Key of the installation; None takes answers from everybody.
            metrics: Counts the calls.
            spans: Shows each call.

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
        self._commands = commands
        self._command_of = commands_by_question(commands)
        self._guard = MessageGuard(service, signer)
        self._metrics = metrics
        self._spans = spans
        self._refusals = Refusals("answers", service=service, clock=clock, metrics=metrics)
        self._sequence = 0
        self._waiting: dict[str, _Call] = {}
        self._lanes: dict[str, Lane] = {}
        self._reader: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Calls that wait for their answer."""
        return len(self._waiting)

    @property
    def refused(self) -> Mapping[Cause, int]:
        """Answers put aside unread, by cause."""
        return self._refusals.counts

    async def start(self) -> None:
        """Open the inbox and begin to read it."""
        await self._channel.open()
        self._reader = asyncio.create_task(self._read_answers(), name="rpc-client")

    async def stop(self) -> None:
        """Stop reading; calls that still wait end with the error code ``CLIENT_STOPPED``."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await end_task(reader)
        for call in self._waiting.values():
            self._end(call, error_response("CLIENT_STOPPED", "the caller stopped"))
        for lane in self._lanes.values():
            await lane.close(_FAREWELL_SECONDS)
        with suppress(TransientError):
            await self._channel.close()

    # -- calling ------------------------------------------------------------------------------------------------------

    async def ask(self, question: Question[ResultT], *, timeout: float, request_id: str | None = None) -> ResultT:
        """Ask the service whose command takes ``question``, and return its result.

        ``(await rpc.ask(GetPositionsRequest(), timeout=2.0)).positions``

        Args:
            question: Parameters; their type says which command is meant.
            timeout: As in ``call``.
            request_id: As in ``call``.

        Raises:
            RpcError: The service said no; ``code`` says why.
            DeadlineExceededError: There was no answer in time; the command may have run.
            DecodeError: The result is not what the command promises.
            InvalidInputError: As in ``call``, or ``question`` belongs to no command.
            NotRunningError: As in ``call``.
        """
        command = self._command_of.get(type(question))
        if command is None:
            raise InvalidInputError(f"{type(question).__name__} belongs to no command; see shared/rpc/commands.py")
        spec = self._commands[command]
        response = await self.call(
            service=spec.service,
            command=command,
            parameters=question.model_dump(mode="json"),
            timeout=timeout,
            request_id=request_id,
        )
        if response.status == "TIMEOUT":
            raise DeadlineExceededError(str(response.error_message))
        if response.result is None:
            raise RpcError(str(response.error_code), str(response.error_message))
        return _result(command, cast("type[ResultT]", spec.result_model), response.result)

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
        first run instead of a second one. Inside a handler the call ends when the handler's own caller stops waiting.
        When the call is cancelled, or ends as TIMEOUT, the service is told: a command without an effect is given up.

        Args:
            service: Service that answers, for example ``exec-risk-service``.
            command: Command from ``shared.rpc.commands``.
            parameters: JSON object of its request model.
            timeout: Longest wait for the answer, seconds, above 0.
            request_id: Given when an earlier call is repeated; otherwise new.

        Raises:
            InvalidInputError: The parameters cannot travel, or ``request_id`` is no id or is waited for already.
            NotRunningError: The client was not started.
        """
        if self._reader is None:
            raise NotRunningError(f"RPC {command!r}: the client is not started")
        began = self._clock.monotonic()
        left = seconds_left()
        if left == 0:
            response = _too_late_to_ask(service, command)
        else:
            timeout = timeout if left is None else min(timeout, left)
            request = self._request(service, command, parameters or {}, timeout, request_id)
            with self._spans.call(
                service,
                command,
                request_id=request.request_id,
                trace_id=request.trace_id,
                causation_id=request.causation_id,
            ) as span:
                response = await self._exchange(request)
                span.end_as(response.status.lower(), response.error_message)
        if self._metrics is not None:
            label = command if command in self._commands else "unknown"
            self._metrics.rpc_called(service, response.status, self._clock.monotonic() - began, command=label)
        return response

    async def _exchange(self, request: RPCRequest) -> RPCResponse:
        if request.request_id in self._waiting:
            raise InvalidInputError(f"request id {request.request_id!r} is waited for already; wait for that call")
        fields = self._guard.seal(encode_request(request))
        loop = asyncio.get_running_loop()
        call = _Call(request, loop.create_future(), self._lane(request.service_target))
        self._waiting[request.request_id] = call
        timer = loop.call_later(request.timeout_seconds, self._time_out, call)
        call.lane.send(request.request_id, fields)
        try:
            return await call.reply
        except asyncio.CancelledError:
            self._withdraw(call)
            raise
        finally:
            timer.cancel()
            del self._waiting[request.request_id]

    def _request(
        self, service: str, command: str, parameters: Mapping[str, Any], timeout: float, request_id: str | None
    ) -> RPCRequest:
        if request_id is not None:
            require_request_id(request_id)
        request_id = request_id or self._ids.new()
        trace = current_trace()
        self._sequence += 1
        return RPCRequest(
            request_id=request_id,
            service_target=service,
            command=command,
            parameters=parameters,
            timeout_seconds=timeout,
            source=self._service,
            instance=self._instance,
            timestamp=self._clock.now(),
            sequence=self._sequence,
            trace_id=trace.trace_id if trace else request_id,  # a call that nothing caused begins a trace
            causation_id=trace.causation_id if trace else None,
        )

    def _lane(self, service: str) -> Lane:
        lane = self._lanes.get(service)
        if lane is None:
            require_address(service, self._instance)
            lane = self._lanes[service] = Lane(
                self._channel,
                service,
                is_waited_for=self._waiting.__contains__,
                clock=self._clock,
                backoff=self._backoff,
            )
        return lane

    def _time_out(self, call: _Call) -> None:
        self._end(call, _timed_out(call.request))

    def _end(self, call: _Call, response: RPCResponse) -> None:
        if not call.reply.done():
            call.reply.set_result(response)
            self._withdraw(call)

    def _withdraw(self, call: _Call) -> None:
        request = call.request

        def cancellation() -> Fields:
            return self._guard.seal(encode_cancellation(Cancellation.of(request), service=request.service_target))

        call.lane.withdraw(request.request_id, cancellation)

    # -- answers ------------------------------------------------------------------------------------------------------

    async def _read_answers(self) -> None:
        failures = 0
        while True:
            try:
                answers = await self._channel.receive()
                failures = 0
            except TransientError as error:
                failures += 1
                if failures % _FAILURES_PER_LINE == 1:
                    log.warning("rpc_inbox_unreachable", error=str(error), failures=failures)
                await self._clock.sleep(self._backoff.delay(failures))
                continue
            for fields in answers:
                self._hand_over(fields)

    def _hand_over(self, fields: Fields) -> None:
        answer = self._guard.answer(fields)
        if isinstance(answer, Refusal):
            self._refusals.note(answer)
            return
        request_id, source, response = answer
        call = self._waiting.get(request_id)
        if call is None or call.reply.done():
            log.debug("rpc_answer_late", request_id=request_id)  # its caller gave up, or has it already
        elif source != call.request.service_target:
            self._refusals.note(Refusal("wrong_service", f"{source!r:.80} answers for {call.request.service_target}"))
        else:
            call.reply.set_result(response)


def _result(command: str, model: type[ResultT], result: Mapping[str, Any]) -> ResultT:
    try:
        return model.model_validate(result)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise DecodeError(f"result of {command}: {where}: {problem['msg']}", raw=result) from None


def _timed_out(request: RPCRequest) -> RPCResponse:
    return RPCResponse(
        "TIMEOUT",
        error_code="TIMEOUT",
        error_message=(
            f"{request.service_target} did not answer {request.command} within {request.timeout_seconds:g} s; "
            "it may still have run"
        ),
    )


def _too_late_to_ask(service: str, command: str) -> RPCResponse:
    said = f"{service} was not asked for {command}: nobody waits for it any more"
    return RPCResponse("TIMEOUT", error_code="TIMEOUT", error_message=said)
