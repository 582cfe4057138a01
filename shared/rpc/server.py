"""Answers the commands of one service: each request once, in time, and never with a traceback."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import structlog
from pydantic import ValidationError

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import DecodeError, InvalidInputError, QuantumTraderError, RpcError, TransientError
from shared.rpc.commands import COMMANDS, CommandSpec, RpcModel
from shared.rpc.messages import RPCRequest, RPCResponse, decode_request, encode_response, require_address
from shared.rpc.transport import Busy, Delivery, Done, Reply, RpcTransport
from shared.telemetry.metrics import Metrics
from shared.telemetry.trace import TraceContext, use_trace

#: Takes the validated request model, returns the result model.
RpcHandler: TypeAlias = Callable[[Any], Awaitable[RpcModel]]

#: Answers kept for repeated requests.
_ANSWERS_KEPT = 1000
#: A request that is worked on for this long is held, so that no other replica takes it for abandoned.
_HOLD_AFTER_SECONDS = 4.0

log = structlog.get_logger(__name__)


class RpcServer:
    """A component that takes this replica's share of the requests.

    A request is settled together with its answer, so a replica that dies in between leaves it to the next one: within
    the deadline a command can be run again after a crash, and handlers must bear that.

    Attributes:
        name: Component name.
    """

    name = "rpc-server"

    def __init__(
        self,
        transport: RpcTransport,
        *,
        service: str,
        instance: str,
        clock: Clock,
        max_in_flight: int = 64,
        commands: Mapping[str, CommandSpec] = COMMANDS,
        drain_seconds: float = 5.0,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare, without listening.

        Args:
            transport: Carries the messages.
            service: Name of the service.
            instance: Name of this process, unique in the service; the same after a restart if possible.
            clock: Wall clock; deadlines are compared with it.
            max_in_flight: Handlers at work at the same time; more requests are answered ``OVERLOADED``.
            commands: All commands that exist.
            drain_seconds: How long ``stop`` waits for handlers at work.
            metrics: Counts the answers.

        Raises:
            InvalidInputError: ``service`` or ``instance`` cannot be part of a stream name.
        """
        require_address(service, instance)
        self._channel = transport.responder(service, instance)
        self._service = service
        self._instance = instance
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._commands = commands
        self._drain_seconds = drain_seconds
        self._metrics = metrics
        self._backoff = Backoff(base_seconds=0.05, factor=2.0, cap_seconds=2.0)
        self._handlers: dict[str, RpcHandler] = {}
        self._answers: OrderedDict[str, Reply | None] = OrderedDict()
        self._in_hand: dict[str, float] = {}  # entry id -> monotonic time of its arrival
        self._running: dict[str, asyncio.Task[None]] = {}  # request id -> its work
        self._sequence = 0
        self._reader: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests being worked on."""
        return len(self._running)

    def register(self, command: str, handler: RpcHandler) -> None:
        """Let ``handler`` answer ``command``; call before ``start``.

        Raises:
            InvalidInputError: The command does not exist, belongs to another service, or has a handler.
        """
        spec = self._commands.get(command)
        if spec is None or spec.service != self._service:
            raise InvalidInputError(f"command {command!r} is not one of {self._service}; see shared/rpc/commands.py")
        if command in self._handlers:
            raise InvalidInputError(f"command {command!r} has a handler already")
        self._handlers[command] = handler

    async def start(self) -> None:
        """Take part, beginning with what an earlier life of this instance left."""
        left = await self._channel.open()
        self._reader = asyncio.create_task(self._serve(left), name="rpc-server")

    async def stop(self) -> None:
        """Take no more, let handlers finish, leave the rest to another replica."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await end_task(reader)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._drain_seconds)
        for task in list(self._running.values()):
            await end_task(task)
        with suppress(TransientError):
            await self._channel.close()

    # Reading

    async def _serve(self, left: Iterable[Delivery]) -> None:
        waiting, failures = deque(left), 0
        while True:
            try:
                while waiting:
                    await self._accept(waiting[0])
                    waiting.popleft()
                await self._hold_what_takes_long()
                waiting.extend(await self._channel.receive())
                failures = 0
            except TransientError as error:
                failures += 1
                log.warning("rpc_requests_unreachable", error=str(error), failures=failures)
                await self._clock.sleep(self._backoff.delay(failures))
            except Exception:
                # A reader that died of one request would leave every other one without an answer.
                log.exception("rpc_request_dropped", entry_id=waiting[0].entry_id if waiting else None)
                if waiting:
                    waiting.popleft()
                await self._clock.sleep(self._backoff.delay(1))

    async def _accept(self, delivery: Delivery) -> None:
        """Decide what becomes of one request; only those that are new, in time and not too many are run."""
        if delivery.entry_id in self._in_hand:
            return
        try:
            request = decode_request(delivery.fields)
        except DecodeError as error:  # there is no address that an answer could be sent to
            log.error("rpc_request_unreadable", error=str(error), entry_id=delivery.entry_id)
            await self._channel.settle(delivery, None)
            return
        if self._clock.now() >= request.deadline:
            log.warning("rpc_request_late", command=request.command, request_id=request.request_id)
            await self._channel.settle(delivery, None)
        elif request.request_id in self._answers:
            await self._channel.settle(delivery, _addressed(self._answers[request.request_id], request))
        elif request.request_id in self._running:
            await self._channel.settle(delivery, None)  # the first one will answer
        elif len(self._running) >= self._max_in_flight and not self._is_urgent(request.command):
            refusal = RPCResponse("ERROR", error_code="OVERLOADED", error_message=self._overloaded())
            await self._channel.settle(delivery, self._reply(request, refusal))
        else:
            self._in_hand[delivery.entry_id] = self._clock.monotonic()
            self._running[request.request_id] = asyncio.create_task(self._work(delivery, request))

    def _is_urgent(self, command: str) -> bool:
        spec = self._commands.get(command)
        return spec is not None and spec.urgent

    def _overloaded(self) -> str:
        return f"{self._service} runs {self._max_in_flight} commands already; try again later"

    async def _hold_what_takes_long(self) -> None:
        now = self._clock.monotonic()
        long = [entry_id for entry_id, since in self._in_hand.items() if now - since >= _HOLD_AFTER_SECONDS]
        if long:
            await self._channel.hold(long)

    # One request

    async def _work(self, delivery: Delivery, request: RPCRequest) -> None:
        """Run one request and settle it; a transport that is away is tried again while the caller waits."""
        try:
            with use_trace(TraceContext(request.trace_id, request.request_id)):
                reply = await self._reply_to(delivery, request)
            await self._settle_in_time(delivery, request, reply)
        except TransientError as error:
            log.warning("rpc_request_left", command=request.command, request_id=request.request_id, error=str(error))
        except Exception:
            log.exception("rpc_request_failed", command=request.command, request_id=request.request_id)
        finally:
            self._running.pop(request.request_id, None)
            self._in_hand.pop(delivery.entry_id, None)

    async def _reply_to(self, delivery: Delivery, request: RPCRequest) -> Reply | None:
        spec = self._commands.get(request.command)
        if spec is not None and spec.has_effect:
            claim = await self._channel.claim(request.request_id, delivery.entry_id)
            if isinstance(claim, Busy):
                return None
            if isinstance(claim, Done):
                return Reply(request.source, request.instance, claim.fields)
        response = await self._run(request, spec)
        reply = self._reply(request, response, stored=spec is not None and spec.has_effect)
        if response.error_code != "DEADLINE_EXCEEDED":  # cut off, so there is no outcome to repeat
            self._remember(request.request_id, reply)
        return reply

    async def _run(self, request: RPCRequest, spec: CommandSpec | None) -> RPCResponse:
        handler = self._handlers.get(request.command)
        if spec is None or handler is None:
            return _error("UNKNOWN_COMMAND", f"{self._service} has no command {request.command!r}")
        try:
            parameters = spec.request_model.model_validate(dict(request.parameters))
        except ValidationError as error:
            return _error("INVALID_PARAMETERS", _first_problem(request.command, error))
        began = self._clock.monotonic()
        response = await self._guarded(handler, parameters, request, spec)
        elapsed_ms = (self._clock.monotonic() - began) * 1000.0
        return RPCResponse(
            response.status, response.result, response.error_code, response.error_message, max(0.0, elapsed_ms)
        )

    async def _guarded(
        self, handler: RpcHandler, parameters: RpcModel, request: RPCRequest, spec: CommandSpec
    ) -> RPCResponse:
        # A command with an effect is never cut off in the middle; its answer is there for whoever asks again.
        left = None if spec.has_effect else (request.deadline - self._clock.now()).total_seconds()
        try:
            async with asyncio.timeout(left) as limit:
                result = await handler(parameters)
            if not isinstance(result, spec.result_model):
                raise TypeError(f"handler returned {type(result).__name__}, not {spec.result_model.__name__}")
            return RPCResponse("SUCCESS", result.model_dump(mode="json"))
        except RpcError as error:
            return _error(error.code, str(error))
        except QuantumTraderError as error:
            return _error(error_code(error), str(error))
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                message = f"{request.command} took longer than the caller waits"
                return RPCResponse("TIMEOUT", error_code="DEADLINE_EXCEEDED", error_message=message)
            log.exception("rpc_handler_failed", command=request.command, request_id=request.request_id)
            return _error("INTERNAL_ERROR", f"{request.command} failed inside {self._service}; its log says why")

    # The answer

    def _reply(self, request: RPCRequest, response: RPCResponse, *, stored: bool = False) -> Reply | None:
        if not (request.require_response or stored):
            return None
        self._sequence += 1
        if self._metrics is not None:
            # A name that nobody registered never becomes a label: a caller could make up any number of them.
            command = request.command if request.command in self._handlers else "unknown"
            self._metrics.rpc_served(command, response.status)
        fields = encode_response(
            response,
            request,
            source=self._service,
            instance=self._instance,
            timestamp=self._clock.now(),
            sequence=self._sequence,
        )
        return Reply(request.source, request.instance, fields, stored_as=request.request_id if stored else None)

    def _remember(self, request_id: str, reply: Reply | None) -> None:
        self._answers[request_id] = reply
        while len(self._answers) > _ANSWERS_KEPT:
            self._answers.popitem(last=False)

    async def _settle_in_time(self, delivery: Delivery, request: RPCRequest, reply: Reply | None) -> None:
        failures = 0
        while True:
            try:
                return await self._channel.settle(delivery, reply)
            except TransientError:
                if self._clock.now() >= request.deadline:
                    raise
                failures += 1
                await self._clock.sleep(self._backoff.delay(failures))


def _addressed(reply: Reply | None, request: RPCRequest) -> Reply | None:
    """Return the stored answer on its way to whoever asks now: the caller may have been restarted in between."""
    if reply is None or not request.require_response:
        return None
    return replace(reply, service=request.source, instance=request.instance)


def error_code(error: QuantumTraderError) -> str:
    """Return ``CONNECTION_LOST`` for ConnectionLostError, and so on for the whole tree."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def _error(code: str, message: str) -> RPCResponse:
    return RPCResponse("ERROR", error_code=code, error_message=message)


def _first_problem(command: str, error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "parameters"
    return f"{command}: {where}: {problem['msg']}, was {problem['input']!r:.80}"
