"""From a call to its answer: the right handler, at most once across all replicas when it has an effect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from shared.backoff import Backoff
from shared.clock import Clock
from shared.errors import InvalidInputError, TransientError
from shared.rpc.codec import encode_response
from shared.rpc.commands import CommandSpec
from shared.rpc.execution import RpcHandler, parameters_of, run_command
from shared.rpc.guard import MessageGuard
from shared.rpc.jobs import Job
from shared.rpc.messages import Fields, RPCRequest, RPCResponse, error_response
from shared.rpc.transport import Busy, Claim, ClaimBook, Done, StoredResult
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import Spans

_BETWEEN_CLAIMS = Backoff(base_seconds=0.05, factor=2.0, cap_seconds=2.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to.

    Attributes:
        fields: The answer, ready to be sent; None when somebody else will answer, or nobody waits.
        result: The same, when every replica must find it again.
        is_final: Whether a repeated request gets this answer, too.
    """

    fields: Fields | None = None
    result: StoredResult | None = None
    is_final: bool = False


class Dispatcher:
    """The handlers of one service."""

    def __init__(
        self,
        *,
        service: str,
        instance: str,
        commands: Mapping[str, CommandSpec],
        claims: ClaimBook,
        guard: MessageGuard,
        clock: Clock,
        metrics: Metrics | None,
        spans: Spans,
    ) -> None:
        """Prepare, without handlers.

        Args:
            service: Name of the service.
            instance: Name of this process.
            commands: All commands that exist.
            claims: Which calls with an effect are run or were run.
            guard: Signs the answers.
            clock: Wall clock.
            metrics: Counts the answers.
            spans: Shows each call that is run.
        """
        self._service = service
        self._instance = instance
        self._commands = commands
        self._claims = claims
        self._guard = guard
        self._clock = clock
        self._metrics = metrics
        self._spans = spans
        self._handlers: dict[str, RpcHandler] = {}
        self._sequence = 0

    def register(self, command: str, handler: RpcHandler) -> None:
        """Let ``handler`` answer ``command``.

        Raises:
            InvalidInputError: The command does not exist, belongs to another service, or has a handler.
        """
        spec = self._commands.get(command)
        if spec is None or spec.service != self._service:
            raise InvalidInputError(f"command {command!r} is not one of {self._service}; see shared/rpc/commands.py")
        if command in self._handlers:
            raise InvalidInputError(f"command {command!r} has a handler already")
        self._handlers[command] = handler

    def spec_of(self, command: str) -> CommandSpec | None:
        """Return the command of that name; None when this service does not answer it."""
        return self._commands[command] if command in self._handlers else None

    async def run(self, job: Job) -> Outcome:
        """Run the call and return its answer.

        Raises:
            TransientError: It could not be claimed for as long as its caller waits.
        """
        request, spec = job.request, job.spec
        if spec is None:
            refusal = error_response("UNKNOWN_COMMAND", f"{self._service} has no command {request.command!r:.80}")
            return Outcome(self.answer(request, refusal))
        parameters = parameters_of(request, spec)
        if isinstance(parameters, RPCResponse):
            return Outcome(self.answer(request, parameters))
        if spec.has_effect:
            claim = await self._claim(job)
            if isinstance(claim, Busy):
                return Outcome()
            if isinstance(claim, Done):
                return self._repeated(request, claim)
        began = self._clock.monotonic()
        with self._spans.serve(
            request.command, request_id=request.request_id, trace_id=request.trace_id, source=request.source
        ) as span:
            response = await run_command(self._handlers[request.command], parameters, spec, request)
            span.end_as(response.status.lower(), response.error_message)
        seconds = max(0.0, self._clock.monotonic() - began)
        fields = self.answer(request, response, seconds=seconds)
        result = StoredResult(request.key, fields) if spec.has_effect else None
        # What failed without an effect may go better the next time.
        return Outcome(fields, result, is_final=spec.has_effect or response.succeeded)

    def answer(self, request: RPCRequest, response: RPCResponse, *, seconds: float | None = None) -> Fields:
        """Return the fields of ``response``, counted and signed.

        Args:
            request: What is answered.
            response: The answer.
            seconds: Time in the handler, when it ran.
        """
        if seconds is not None:
            response = RPCResponse(
                response.status, response.result, response.error_code, response.error_message, seconds * 1000.0
            )
        try:
            fields = self._guard.seal(self._encoded(request, response))
        except InvalidInputError as error:
            log.error("rpc_answer_cannot_travel", command=request.command, error=str(error))
            response = error_response("INTERNAL_ERROR", f"the result of {request.command} cannot travel; see the log")
            fields = self._guard.seal(self._encoded(request, response))
        if self._metrics is not None:
            # A name that nobody registered never becomes a label: a caller could make up any number of them.
            command = request.command if request.command in self._handlers else "unknown"
            self._metrics.rpc_served(command, response.status, seconds)
        return fields

    def _encoded(self, request: RPCRequest, response: RPCResponse) -> dict[bytes, bytes]:
        self._sequence += 1
        return encode_response(
            response,
            request,
            source=self._service,
            instance=self._instance,
            timestamp=self._clock.now(),
            sequence=self._sequence,
        )

    async def _claim(self, job: Job) -> Claim:
        request, failures = job.request, 0
        while True:
            try:
                return await self._claims.claim(
                    request.key, entry_id=job.delivery.entry_id, fingerprint=request.fingerprint
                )
            except TransientError:
                if asyncio.get_running_loop().time() >= job.deadline:
                    raise
                failures += 1
                await self._clock.sleep(_BETWEEN_CLAIMS.delay(failures))

    def _repeated(self, request: RPCRequest, claim: Done) -> Outcome:
        if claim.fingerprint != request.fingerprint:
            return Outcome(self.reused(request))
        return Outcome(claim.fields, is_final=True)

    def reused(self, request: RPCRequest) -> Fields:
        """Return the answer to somebody who asks something else under the id of an earlier request."""
        said = f"request id {request.request_id!r} belongs to another question; take a new one"
        return self.answer(request, error_response("REQUEST_ID_REUSED", said))
