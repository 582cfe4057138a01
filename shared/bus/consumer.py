"""The one consume loop: read, decode, middleware, handler, settle.

An entry's way, top to bottom: ``_consume`` reads it, ``_admit`` decodes it and puts it into the lane of its key,
``_drain`` takes a lane's deliveries one after the other, ``_deliver`` lets the middleware and the handlers try until
there is a final verdict, ``_settle`` carries it out.

Order: deliveries of one key (symbol, service, model; else the stream) are handled by this instance in the order in
which they were read. One that waits for its next try holds back the later ones of its key, which may build on it, and
no others. Different keys run concurrently up to ``ConsumerOptions.concurrency``. On one server the replicas of a
service share entries without regard to the key; on a cluster each partition, and with it each key, has one owner.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from shared.backoff import Backoff
from shared.bus.delivery import Delivery, dead_letter_fields, receive
from shared.bus.delivery_policy import DeadLetter, DeliveryPolicy, Retry, Verdict
from shared.bus.middleware import Step
from shared.bus.progress import BusProgress, SlidingCount
from shared.bus.sequence_watch import SequenceWatch
from shared.bus.transport import Entry, EntryKey, EntrySource
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import DecodeError, TransientError
from shared.events.codec import UPCASTERS, Upcaster

log = structlog.get_logger(__name__)

DEFAULT_POLICY = DeliveryPolicy()
#: An entry that arrives for so many-th a try is a suspect: one like it may be what killed its consumer. Suspects are
#: tried one after the other, each settled before the next begins, so that the guilty one takes nobody with it.
_SUSPECT_ATTEMPT = 3
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
        lease_seconds: On a cluster, how long the partitions of a dead consumer wait for the next owner.
        stop_timeout_seconds: How long ``stop`` lets running handlers finish before it cuts them off; what is cut off
            is delivered again.
        refuse_late_commands: False for a service that records events instead of acting on them.
        upcasters: How payloads of older schema versions are read.
        remember_handled: Events handled lately that are acknowledged at once when they come again; 0 lets the handlers
            see every repetition.
        reconnect: Delays between tries while the store is away.
    """

    policy: DeliveryPolicy = DEFAULT_POLICY
    concurrency: int = 32
    max_in_hand: int = 1000
    read_limit: int = 200
    claim_idle_seconds: float | None = 60.0
    lease_seconds: float = 5.0
    stop_timeout_seconds: float = 10.0
    refuse_late_commands: bool = True
    upcasters: Mapping[str, Upcaster] = field(default_factory=lambda: UPCASTERS)
    remember_handled: int = 10_000
    reconnect: Backoff = RECONNECT


@dataclass(slots=True, eq=False)
class _Lane:
    """The deliveries of one key that wait for their turn, and the task that works them off."""

    waiting: deque[Delivery] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Consumer:
    """Consumes for one instance of one service."""

    def __init__(
        self,
        source: EntrySource,
        step: Step,
        *,
        streams: Mapping[str, str],
        clock: Clock,
        options: ConsumerOptions,
        watch: SequenceWatch | None = None,
    ) -> None:
        """Prepare, without reading.

        Args:
            source: Where entries come from and are settled.
            step: One try: middleware and handlers.
            streams: What to consume: event type by stream.
            clock: Wall clock for delays.
            options: Bounds and times.
            watch: Is told of every event that arrives; None when not all event types are consumed.
        """
        self._source = source
        self._step = step
        self._type_of_stream = dict(streams)
        self._clock = clock
        self._options = options
        self._watch = watch
        self._in_hand: dict[EntryKey, Delivery] = {}
        self._lanes: dict[str, _Lane] = {}
        self._slots = asyncio.Semaphore(options.concurrency)
        self._alone = asyncio.Lock()
        self._space = asyncio.Event()
        self._space.set()
        self._in_step = asyncio.Event()
        self._stopping = asyncio.Event()
        self._dealt_with: list[Delivery] = []
        self._acknowledging: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._trying: dict[EntryKey, float] = {}
        self._read_at = clock.monotonic()
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
        now = self._clock.monotonic()
        return BusProgress(
            pending=len(self._in_hand),
            processed_last_minute=self._settled.total(),
            last_event_id=event_id,
            lag_seconds=lag_seconds,
            oldest_in_hand_seconds=max((now - since for since in self._trying.values()), default=0.0),
            # A full hand pauses the reading; whether it empties is told by the age of what is in it.
            seconds_since_read=now - self._read_at if self._space.is_set() else 0.0,
        )

    # -- read, decode -----------------------------------------------------------------------------------------------

    async def _consume(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            await self._space.wait()
            self._read_at = self._clock.monotonic()
            try:
                if not self._in_step.is_set():
                    await self._source.open(list(self._type_of_stream))
                    self._admit(await self._source.reclaim(idle_seconds=None, skip=self._in_hand))
                    self._in_step.set()
                await self._read()
                failures = 0
            except Exception as error:  # noqa: BLE001 - a consumer that ends silently is the worst a bus can do
                # The groups may be gone, and the lost answer may have held entries that now count as ours.
                self._in_step.clear()
                failures += 1
                delay = self._options.reconnect.delay(failures)
                log.warning("bus_read_failed", reason=_told(error), retry_in_seconds=delay)
                await self._clock.sleep(delay)

    async def _read(self) -> None:
        room = self._room()
        entries = await self._source.read(room)
        self._admit(entries)
        if self._watch is not None and len(entries) < room:
            self._watch.caught_up(now=self._clock.monotonic())

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
            known = self._in_hand.get(entry.key)
            if known is None or not self._source.owns(known.entry):
                delivery = receive(entry, self._type_of_stream[entry.stream], self._options.upcasters)
                self._in_hand[entry.key] = delivery
                if self._watch is not None:
                    self._note(self._watch, delivery)
                self._enqueue(delivery.ordering_key, delivery)
        if len(self._in_hand) >= self._options.max_in_hand:
            self._space.clear()

    def _note(self, watch: SequenceWatch, delivery: Delivery) -> None:
        if not isinstance(delivery.content, DecodeError):
            producer = delivery.entry.fields.get(b"producer", b"")
            watch.seen(producer, delivery.content.metadata.sequence, now=self._clock.monotonic())

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
            self._drop(delivery)

    async def _deliver(self, delivery: Delivery) -> None:
        """Try until a final verdict settles the delivery, or the consumer stops."""
        entry = delivery.entry
        turn = self._alone if entry.attempt >= _SUSPECT_ATTEMPT else nullcontext()
        while True:
            async with turn, self._slots:
                if self._stopping.is_set():
                    return
                if not self._source.owns(entry):
                    self._drop(delivery)
                    return
                verdict = await self._try(delivery)
                if not isinstance(verdict, Retry):
                    await self._settle(delivery, verdict)
                    if turn is self._alone and self._acknowledging is not None:
                        await asyncio.wait([self._acknowledging])
                    return
            await self._wait_unless_stopping(verdict.delay_seconds)
            entry.attempt = verdict.attempt

    async def _try(self, delivery: Delivery) -> Verdict:
        key = delivery.entry.key
        self._trying[key] = self._clock.monotonic()
        try:
            if delivery.entry.attempt > 1:
                await self._count_try(delivery.entry)
            return await self._step(delivery)
        finally:
            del self._trying[key]

    def _drop(self, delivery: Delivery) -> None:
        """Leave a delivery to the consumer that its partition went over to."""
        self._forget(delivery)
        self._source.let_go(delivery.entry)
        self._make_space()

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
            self._forget(delivery)
        self._make_space()
        self._settled.add(len(settled))
        newest = settled[-1].content
        if not isinstance(newest, DecodeError):
            age = (self._clock.now() - newest.metadata.timestamp).total_seconds()
            self._last_settled = (newest.metadata.event_id, max(0.0, age))

    def _forget(self, delivery: Delivery) -> None:
        """Let go of the delivery, not of a newer one of the same entry that came with a new term."""
        if self._in_hand.get(delivery.entry.key) is delivery:
            del self._in_hand[delivery.entry.key]

    def _make_space(self) -> None:
        if len(self._in_hand) < self._options.max_in_hand:
            self._space.set()

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
