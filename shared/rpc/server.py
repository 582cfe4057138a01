"""Answers the commands of one service: each request once, in time, and never with a traceback.

A request's way, top to bottom: ``_read_requests`` takes it, ``_decide`` says what becomes of it, ``_work`` runs it in a
task of its own, and the settler sends the answer and has the transport forget the request, in this order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import structlog

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import TransientError
from shared.rpc.answers import AnswerMemory
from shared.rpc.commands import COMMANDS, CommandSpec
from shared.rpc.deadline import use_deadline
from shared.rpc.dispatch import Dispatcher, Outcome
from shared.rpc.execution import RpcHandler
from shared.rpc.guard import MessageGuard
from shared.rpc.jobs import CancelledCalls, Job
from shared.rpc.messages import CallKey, Fields, RPCRequest, RPCResponse, error_response, require_address
from shared.rpc.refusals import Cause, Refusal, Refusals
from shared.rpc.settling import Settler
from shared.rpc.signing import Signer
from shared.rpc.transport import Delivery, Reply, RpcTransport, Settlement, StoredResult
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import NO_SPANS, Spans
from shared.telemetry.trace import TraceContext, use_trace

__all__ = ["RpcHandler", "RpcServer"]

#: Requests read at once when no handler is free: urgent ones are found among them, the others are refused.
_READ_WHEN_FULL = 32
#: How long a replica without a free place leaves new requests to the others.
_MOMENT_SECONDS = 0.01
#: How long the settlement of a request that nobody waits for is tried.
_FORGET_SECONDS = 30.0
#: Of so many failures in a row one is told.
_FAILURES_PER_LINE = 30
#: Requests that are in hand for this share of the others' patience are held.
_HOLD_SHARE = 0.25

T = TypeVar("T")

log = structlog.get_logger(__name__)


class RpcServer:
    """A component that takes this replica's share of the requests.

    A request is forgotten only after its answer was sent, so a replica that dies in between leaves it to the next one:
    within the deadline a command can be run again after a crash, and handlers must bear that. A command with an effect
    whose answer was stored is never run again.

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
        signer: Signer | None = None,
        metrics: Metrics | None = None,
        spans: Spans = NO_SPANS,
    ) -> None:
        """Prepare, without listening.

        Args:
            transport: Carries the messages.
            service: Name of the service.
            instance: Name of this process, unique in the service; the same after a restart if possible.
            clock: Wall clock; deadlines are compared with it.
            max_in_flight: Handlers at work at the same time; more requests are answered ``OVERLOADED``.
            commands: All commands that exist.
            drain_seconds: How long ``stop`` waits for handlers at work, and then for their answers to be sent.
            signer: Key of the installation; None takes requests from everybody.
            metrics: Counts the answers.
            spans: Shows each call that is run.

        Raises:
            InvalidInputError: ``service`` or ``instance`` cannot be part of a stream name.
        """
        require_address(service, instance)
        self._service = service
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._drain_seconds = drain_seconds
        self._backoff = Backoff(base_seconds=0.05, factor=2.0, cap_seconds=2.0)
        self._channel = transport.responder(service, instance)
        self._claims = transport.claims(service)
        self._feed = transport.cancellations(service)
        self._guard = MessageGuard(service, signer)
        self._dispatcher = Dispatcher(
            service=service,
            instance=instance,
            commands=commands,
            claims=self._claims,
            guard=self._guard,
            clock=clock,
            metrics=metrics,
            spans=spans,
        )
        self._settler = Settler(self._channel, on_end=self._let_go)
        self._refusals = Refusals("requests", service=service, clock=clock, metrics=metrics)
        self._answers = AnswerMemory(clock)
        self._cancelled = CancelledCalls()
        self._in_hand: dict[str, float] = {}  # entry id -> loop time at which it came
        self._jobs: dict[CallKey, Job] = {}
        self._place_is_free = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Calls being worked on."""
        return len(self._jobs)

    @property
    def refused(self) -> Mapping[Cause, int]:
        """Requests put aside without an answer, by cause."""
        return self._refusals.counts

    def register(self, command: str, handler: RpcHandler) -> None:
        """Let ``handler`` answer ``command``; call before ``start``.

        Raises:
            InvalidInputError: The command does not exist, belongs to another service, or has a handler.
        """
        self._dispatcher.register(command, handler)

    async def start(self) -> None:
        """Take part, beginning with what an earlier life of this instance left."""
        left = await self._channel.open()
        work = {"cancellations": self._hear_cancellations(), "requests": self._read_requests(left)}
        work["upkeep"] = self._keep_up()
        self._tasks = [asyncio.create_task(part, name=f"rpc-server-{name}") for name, part in work.items()]

    async def stop(self) -> None:
        """Take no more, let handlers finish, leave the rest to another replica."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await end_task(task)
        work = [job.task for job in self._jobs.values() if job.task is not None]
        if work:
            await asyncio.wait(work, timeout=self._drain_seconds)
        for task in [*work, *self._chores]:
            await end_task(task)
        await self._settler.close(self._drain_seconds)
        await self._feed.close()
        with suppress(TransientError):
            await self._channel.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _read_requests(self, left: Sequence[Delivery]) -> None:
        self._accept_all(left)
        while True:
            await self._settler.wait_for_room()
            if places := self._free_places:
                # No more than can be run, so that other replicas get their share.
                self._accept_all(await self._persistently(self._channel.receive, places))
                continue
            # Who waits at the stream is served first, and that are the replicas that have a place: what is still there
            # after a moment nobody could take. Urgent requests among it are run, the others refused.
            await self._wait_for_a_place(_MOMENT_SECONDS)
            if not self._free_places:
                self._accept_all(await self._persistently(partial(self._channel.receive, _READ_WHEN_FULL, wait=False)))

    @property
    def _free_places(self) -> int:
        return max(0, self._max_in_flight - len(self._jobs))

    async def _wait_for_a_place(self, seconds: float) -> None:
        self._place_is_free.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._place_is_free.wait()

    async def _hear_cancellations(self) -> None:
        while True:
            for fields in await self._persistently(self._feed.receive):
                self._cancel(fields)

    async def _keep_up(self) -> None:
        """Hold what takes long, and take over what dead replicas left."""
        pause = self._channel.patience_seconds * _HOLD_SHARE
        while True:
            await asyncio.sleep(pause)
            oldest = asyncio.get_running_loop().time() - pause
            if long := [entry_id for entry_id, since in self._in_hand.items() if since <= oldest]:
                await self._persistently(self._channel.hold, long)
            if claimed := [key for key, job in self._jobs.items() if job.has_effect]:
                await self._persistently(self._claims.keep, claimed)
            if places := self._free_places:
                self._accept_all(await self._persistently(self._channel.take_over, places))

    async def _persistently(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Do ``work`` again and again until the transport is there."""
        failures = 0
        while True:
            try:
                return await work(*args)
            except TransientError as error:
                failures += 1
                if failures % _FAILURES_PER_LINE == 1:
                    log.warning("rpc_transport_away", service=self._service, error=str(error), failures=failures)
            except Exception:
                failures += 1
                log.exception("rpc_reading_failed", service=self._service)
            await self._clock.sleep(self._backoff.delay(failures))

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _accept_all(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.entry_id not in self._in_hand:
                self._in_hand[delivery.entry_id] = asyncio.get_running_loop().time()
                self._accept(delivery)

    def _accept(self, delivery: Delivery) -> None:
        try:
            self._decide(delivery)
        except Exception:
            # A reader that died of one request would leave every other one without an answer.
            log.exception("rpc_request_dropped", entry_id=delivery.entry_id)
            self._forget(delivery)

    def _decide(self, delivery: Delivery) -> None:
        """Decide what becomes of one request; only those that are new, in time and not too many are run."""
        now = self._clock.now()
        request = self._guard.request(delivery.fields, now)
        if isinstance(request, Refusal):
            self._refusals.note(request)
            self._forget(delivery)
            return
        key = request.key
        # A caller whose clock is ahead waits no longer than it says.
        seconds = min((request.deadline - now).total_seconds(), request.timeout_seconds)
        if seconds <= 0 or request in self._cancelled:
            why = "rpc_request_late" if seconds <= 0 else "rpc_request_cancelled"
            log.info(why, command=request.command, request_id=request.request_id)
            self._drop(delivery, request)
        elif (answer := self._answers.find(key)) is not None:
            same = request.asks_like(answer.command, answer.parameters)
            self._send(delivery, request, answer.fields if same else self._dispatcher.reused(request))
        elif (job := self._jobs.get(key)) is not None:
            self._join(job, delivery, request, seconds)
        elif len(self._jobs) >= self._max_in_flight and not self._is_urgent(request.command):
            said = f"{self._service} runs {self._max_in_flight} commands already; try again later"
            self._send(delivery, request, self._dispatcher.answer(request, error_response("OVERLOADED", said)))
        else:
            self._run(delivery, request, seconds)

    def _is_urgent(self, command: str) -> bool:
        spec = self._dispatcher.spec_of(command)
        return spec is not None and spec.urgent

    def _join(self, job: Job, delivery: Delivery, request: RPCRequest, seconds: float) -> None:
        if not request.asks_like(job.request.command, job.request.parameters):
            self._send(delivery, request, self._dispatcher.reused(request))
        elif job.knows(request.attempt):
            self._forget(delivery)  # a copy, sent because the receipt of the first one was lost
        elif job.cut_off is not None:
            job.after.append(delivery)
        else:
            job.join(delivery, request, asyncio.get_running_loop().time() + seconds)

    def _cancel(self, fields: Fields) -> None:
        cancellation = self._guard.cancellation(fields)
        if isinstance(cancellation, Refusal):
            self._refusals.note(cancellation)
            return
        self._cancelled.add(cancellation)
        job = self._jobs.get(cancellation.key)
        if job is not None:
            for entry_id in job.leave(cancellation):
                self._settler.put(Settlement(entry_id), seconds=_FORGET_SECONDS)

    def _drop(self, delivery: Delivery, request: RPCRequest) -> None:
        """Do not run it; nothing is stored, so that a later request with the same id can be run."""
        spec = self._dispatcher.spec_of(request.command)
        if delivery.taken_over and spec is not None and spec.has_effect:
            # Whoever had it may have claimed the call, and nobody will answer it any more.
            chore = asyncio.create_task(self._release(delivery, request))
            self._chores.add(chore)
            chore.add_done_callback(self._chores.discard)
        else:
            self._forget(delivery)

    async def _release(self, delivery: Delivery, request: RPCRequest) -> None:
        try:
            await self._claims.release(request.key, entry_id=delivery.entry_id)
        except TransientError as error:
            log.warning("rpc_claim_left", request_id=request.request_id, error=str(error))
        self._forget(delivery)

    # -- one request --------------------------------------------------------------------------------------------------

    def _run(self, delivery: Delivery, request: RPCRequest, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        job = Job(delivery, request, self._dispatcher.spec_of(request.command), loop.time() + seconds)
        self._jobs[request.key] = job
        job.begin(loop.create_task(self._work(job)))

    async def _work(self, job: Job) -> None:
        request, job.has_begun = job.request, True
        try:
            if job.cut_off is None:
                with use_trace(TraceContext(request.trace_id, request.request_id)), use_deadline(job.deadline):
                    outcome = await self._dispatcher.run(job)
            else:
                outcome = self._cut_off(job)
        except asyncio.CancelledError:
            if job.cut_off is None:
                raise  # this replica stops: the request stays for another one
            outcome = self._cut_off(job)
        except TransientError as error:
            log.warning("rpc_request_left", command=request.command, request_id=request.request_id, error=str(error))
            for entry_id in job.asks:
                self._let_go(entry_id)
            return
        except Exception:
            log.exception("rpc_request_failed", command=request.command, request_id=request.request_id)
            outcome = Outcome(self._dispatcher.answer(request, error_response("INTERNAL_ERROR", "see the log")))
        finally:
            job.finish()
            del self._jobs[request.key]
            self._place_is_free.set()
        self._settle(job, outcome)
        for delivery in job.after:
            self._accept(delivery)

    def _cut_off(self, job: Job) -> Outcome:
        if job.cut_off == "caller":
            return Outcome()
        said = f"{job.request.command} took longer than the caller waits"
        response = RPCResponse("TIMEOUT", error_code="DEADLINE_EXCEEDED", error_message=said)
        return Outcome(self._dispatcher.answer(job.request, response))

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if outcome.fields is not None and outcome.is_final:
            self._answers.keep(job.request, outcome.fields)
        result = outcome.result
        for entry_id, request in job.asks.items():
            self._put(entry_id, request, outcome.fields, result, seconds=request.timeout_seconds)
            result = None

    def _send(self, delivery: Delivery, request: RPCRequest, fields: Fields) -> None:
        self._put(delivery.entry_id, request, fields, None, seconds=request.timeout_seconds)

    def _forget(self, delivery: Delivery) -> None:
        self._settler.put(Settlement(delivery.entry_id), seconds=_FORGET_SECONDS)

    def _put(
        self, entry_id: str, request: RPCRequest, fields: Fields | None, result: StoredResult | None, *, seconds: float
    ) -> None:
        reply = None
        if fields is not None and request.require_response:
            reply = Reply(request.source, request.instance, fields)
        self._settler.put(Settlement(entry_id, reply, result), seconds=seconds)

    def _let_go(self, entry_id: str) -> None:
        self._in_hand.pop(entry_id, None)
