"""The one consume loop: read, decode, middleware, handler, settle.

An entry's way, top to bottom: ``_consume`` reads it, ``_admit`` decodes it and puts it into the lane of its key,
``_drain`` takes a lane's deliveries one after the other, ``_deliver`` lets the middleware and the handlers try until
there is a final verdict, ``_settle`` carries it out.

Order: deliveries of one key (symbol, service, model; else the stream) are handled by this instance in the order in
which they were read. One that waits for its next try holds back the later ones of its key, which may build on it, and
no others. Different keys run concurrently up to ``ConsumerOptions.concurrency``. Replicas of a service share entries
without regard to the key.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from shared.backoff import Backoff
from shared.bus.delivery import Delivery, dead_letter_fields, receive
from shared.bus.delivery_policy import DeadLetter, DeliveryPolicy, Retry, Verdict
from shared.bus.middleware import Step
from shared.bus.progress import BusProgress, SlidingCount
from shared.bus.transport import Entry, EntryKey, EntrySource
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import DecodeError, TransientError
from shared.events.streams import event_stream

log = structlog.get_logger(__name__)

DEFAULT_POLICY = DeliveryPolicy()
RECONNECT = Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Bounds and times of a consumer.

    Attributes:
        policy: Verdicts on tries.
        concurrency: Handlers at work at once, each on another key.
        max_in_hand: Deliveries read and not settled; reading pauses above it.
        read_limit: Most entries per stream and read.
        claim_idle_seconds: An entry that no consumer touched for so long belonged to a dead one and is taken over;
            well above the longest pause of a live process. None where consumers cannot die alone.
        stop_timeout_seconds: How long ``stop`` lets running handlers finish before it cuts them off; what is cut off
            is delivered again.
        refuse_late_commands: False for a service that records events instead of acting on them.
        reconnect: Delays between tries while the store is away.
    """

    policy: DeliveryPolicy = DEFAULT_POLICY
    concurrency: int = 32
    max_in_hand: int = 1000
    read_limit: int = 200
    claim_idle_seconds: float | None = 60.0
    stop_timeout_seconds: float = 10.0
    refuse_late_commands: bool = True
    reconnect: Backoff = RECONNECT


@dataclass(slots=True, eq=False)
class _Lane:
    """The deliveries of one key that wait for their turn, and the task that works them off."""

    waiting: deque[Delivery] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Consumer:
    """Consumes for one instance of one service."""

    def __init__(
        self, source: EntrySource, step: Step, *, event_types: Sequence[str], clock: Clock, options: ConsumerOptions
    ) -> None:
        """Prepare, without reading.

        Args:
            source: Where entries come from and are settled.
            step: One try: middleware and handlers.
            event_types: What to consume.
            clock: Wall clock for delays.
            options: Bounds and times.
        """
        self._source = source
        self._step = step
        self._type_of_stream = {event_stream(event_type): event_type for event_type in event_types}
        self._clock = clock
        self._options = options
        self._in_hand: dict[EntryKey, Delivery] = {}
        self._lanes: dict[str, _Lane] = {}
        self._slots = asyncio.Semaphore(options.concurrency)
        self._space = asyncio.Event()
        self._space.set()
        self._in_step = asyncio.Event()
        self._stopping = asyncio.Event()
        self._dealt_with: list[Delivery] = []
        self._acknowledging: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._settled = SlidingCount(clock)
        self._last_settled: tuple[str | None, float] = (None, 0.0)

    async def start(self) -> None:
        """Return when the groups exist and what this instance left unsettled is in hand again."""
        self._tasks.append(asyncio.create_task(self._consume(), name="bus-consume"))
        if self._options.claim_idle_seconds is not None:
            watch = self._look_after(self._options.claim_idle_seconds)
            self._tasks.append(asyncio.create_task(watch, name="bus-look-after"))
        await self._in_step.wait()

    async def stop(self) -> None:
        """Stop reading, let running handlers finish, settle what they finished, release the rest."""
        self._stopping.set()
        await _end(self._tasks)
        await self._finish_lanes()
        await self._acknowledge_rest()
        try:
            await self._source.release()
        except TransientError as error:
            log.warning("bus_release_failed", reason=str(error))
        self._in_hand.clear()

    def progress(self) -> BusProgress:
        """Return how consuming goes."""
        event_id, lag_seconds = self._last_settled
        return BusProgress(len(self._in_hand), self._settled.total(), event_id, lag_seconds)

    # -- read, decode -----------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            await self._space.wait()
            try:
                if not self._in_step.is_set():
                    await self._source.open(list(self._type_of_stream))
                    self._admit(await self._source.reclaim(idle_seconds=None, skip=self._in_hand))
                    self._in_step.set()
                self._admit(await self._source.read(self._room()))
                failures = 0
            except Exception as error:  # noqa: BLE001 - a consumer that ends silently is the worst a bus can do
                # The groups may be gone, and the lost answer may have held entries that now count as ours.
                self._in_step.clear()
                failures += 1
                delay = self._options.reconnect.delay(failures)
                log.warning("bus_read_failed", reason=_told(error), retry_in_seconds=delay)
                await self._clock.sleep(delay)

    def _room(self) -> int:
        return max(1, min(self._options.read_limit, self._options.max_in_hand - len(self._in_hand)))

    async def _look_after(self, idle_seconds: float) -> None:
        """Keep others from taking what is in hand, and take over what dead consumers left."""
        while True:
            await self._clock.sleep(idle_seconds / 3)
            try:
                await self._source.hold([delivery.entry for delivery in self._in_hand.values()])
                if self._space.is_set():
                    self._admit(await self._source.reclaim(idle_seconds=idle_seconds, skip=self._in_hand))
            except Exception as error:  # noqa: BLE001 - the next round tries again
                log.warning("bus_claim_failed", reason=_told(error))

    def _admit(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.key not in self._in_hand:
                delivery = receive(entry, self._type_of_stream[entry.stream])
                self._in_hand[entry.key] = delivery
                self._enqueue(delivery.ordering_key, delivery)
        if len(self._in_hand) >= self._options.max_in_hand:
            self._space.clear()

    # -- order: one lane per key ------------------------------------------------------------------------------------

    def _enqueue(self, key: str, delivery: Delivery) -> None:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
            lane.task = asyncio.create_task(self._drain(key, lane), name=f"bus-lane-{key}")
        lane.waiting.append(delivery)

    async def _drain(self, key: str, lane: _Lane) -> None:
        try:
            while lane.waiting and not self._stopping.is_set():
                await self._deliver_or_drop(lane.waiting.popleft())
        finally:
            del self._lanes[key]

    # -- middleware, handler ----------------------------------------------------------------------------------------

    async def _deliver_or_drop(self, delivery: Delivery) -> None:
        """Keep a fault of the machinery itself from ending the lane; no longer held, the entry is claimed again."""
        try:
            await self._deliver(delivery)
        except Exception as error:  # noqa: BLE001 - the rest of the lane must flow
            log.error("bus_delivery_failed", entry_id=delivery.entry.entry_id, reason=_told(error))
            del self._in_hand[delivery.entry.key]

    async def _deliver(self, delivery: Delivery) -> None:
        """Try until a final verdict settles the delivery, or the consumer stops."""
        entry = delivery.entry
        while True:
            async with self._slots:
                if self._stopping.is_set():
                    return
                if entry.attempt > 1:
                    await self._count_try(entry)
                verdict = await self._step(delivery)
            if not isinstance(verdict, Retry):
                await self._settle(delivery, verdict)
                return
            await self._wait_unless_stopping(verdict.delay_seconds)
            entry.attempt = verdict.attempt

    async def _count_try(self, entry: Entry) -> None:
        """Write the number of the try down before it begins, so that one which kills the process counts too."""
        try:
            await self._source.hold([entry])
        except Exception as error:  # noqa: BLE001 - the count is a safety net; the try itself matters more
            log.warning("bus_hold_failed", entry_id=entry.entry_id, reason=_told(error))

    # -- settle -----------------------------------------------------------------------------------------------------

    async def _settle(self, delivery: Delivery, verdict: Verdict) -> None:
        if isinstance(verdict, DeadLetter):
            letter = dead_letter_fields(delivery, verdict.reason, failed_at=self._clock.now().isoformat())
            if await self._insist(partial(self._source.dead_letter, delivery.entry, letter)):
                self._let_go([delivery])
            return
        self._dealt_with.append(delivery)
        if self._acknowledging is None:
            self._acknowledging = asyncio.create_task(self._acknowledge(), name="bus-acknowledge")

    async def _acknowledge(self) -> None:
        """Acknowledge in batches: while one is on its way, the next one collects."""
        try:
            while batch := self._dealt_with:
                self._dealt_with = []
                if not await self._insist(partial(self._source.ack, [delivery.entry for delivery in batch])):
                    self._dealt_with = batch + self._dealt_with
                    return
                self._let_go(batch)
        finally:
            self._acknowledging = None

    def _let_go(self, settled: Sequence[Delivery]) -> None:
        for delivery in settled:
            self._in_hand.pop(delivery.entry.key, None)
        if len(self._in_hand) < self._options.max_in_hand:
            self._space.set()
        self._settled.add(len(settled))
        newest = settled[-1].content
        if not isinstance(newest, DecodeError):
            age = (self._clock.now() - newest.metadata.timestamp).total_seconds()
            self._last_settled = (newest.metadata.event_id, max(0.0, age))

    async def _insist(self, operation: Callable[[], Awaitable[None]]) -> bool:
        """Repeat ``operation`` until it works, or until ``stop``; return whether it worked."""
        failures = 0
        while True:
            try:
                await operation()
                return True
            except Exception as error:  # noqa: BLE001 - whatever it is, the entry is not settled yet
                failures += 1
                delay = self._options.reconnect.delay(failures)
                log.warning("bus_settle_failed", reason=_told(error), retry_in_seconds=delay)
            await self._wait_unless_stopping(delay)
            if self._stopping.is_set():
                return False

    # -- stop -------------------------------------------------------------------------------------------------------

    async def _wait_unless_stopping(self, seconds: float) -> None:
        waits = [asyncio.create_task(self._clock.sleep(seconds)), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(waits)

    async def _finish_lanes(self) -> None:
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._options.stop_timeout_seconds)
            await _end([task for task in tasks if task in late])

    async def _acknowledge_rest(self) -> None:
        if self._acknowledging is not None:
            await self._acknowledging
        await self._acknowledge()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*[end_task(task) for task in tasks])


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
