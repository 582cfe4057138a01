"""Completes an event's metadata, numbers it, and sees to it that it reaches its stream.

An event's way out, top to bottom: ``publish`` puts it into the queue, ``_flush`` takes what has gathered there as one
batch, ``_send`` appends the batch, and what cannot be appended now goes into the disk buffer (``_keep``), from which
``_drain`` brings it to its stream later. One batch is on its way at a time: that keeps the order, and the more is
published at once, the larger the batches become.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from shared.backoff import Backoff
from shared.bus.transport import Appender, EventBuffer, NewEntry
from shared.cancellation import end_task
from shared.clock import Clock
from shared.disk_buffer import BufferedEntry
from shared.errors import ConnectionLostError, InvalidInputError, TransientError
from shared.events.codec import encode_metadata, encode_payload
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.events.registry import EVENTS, EventSpec
from shared.events.streams import StreamNames
from shared.ids import IdSource
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import NO_SPANS, Spans
from shared.telemetry.trace import TraceContext, current_trace, outside_trace

log = structlog.get_logger(__name__)

#: Events that leave as one batch; enough that the round trip no longer shows, little enough that none waits for it.
_BATCH = 500
#: Events that come out of the disk buffer at once; more than ``_BATCH``, so that a backlog shrinks under full load.
_DRAIN = 2000
#: What was acknowledged so long ago has reached every replica that will ever be a master.
_LOST_WITHIN_SECONDS = 600.0
_BETWEEN_DRAINS = Backoff(base_seconds=0.1, factor=2.0, cap_seconds=30.0)


@dataclass(slots=True, eq=False)
class _Outgoing:
    """An event whose publisher waits."""

    spec: EventSpec
    payload: EventPayload
    body: bytes
    stream: str
    event_id: str
    trace_id: str
    causation_id: str | None
    timestamp: datetime
    done: asyncio.Future[Event[Any]]
    metadata: EventMetadata | None = None

    def settle(self) -> None:
        assert self.metadata is not None
        if not self.done.done():
            self.done.set_result(Event(self.metadata, self.payload))

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Publisher:
    """Publishes for one producer instance.

    ``sequence`` has no gap per producer: consumers read a gap as loss. An event is numbered when it is placed, on its
    stream or in the disk buffer, and the number of one that could not be placed goes to the next. When only the answer
    was lost, two events carry one number, which nobody can mistake for loss.

    After every outage the first thing to be published is what the store acknowledged before and forgot since: a
    failover makes a replica the master that had not got everything.
    """

    def __init__(
        self,
        appender: Appender,
        *,
        service: str,
        producer: str,
        clock: Clock,
        ids: IdSource,
        streams: StreamNames,
        metrics: Metrics | None = None,
        spans: Spans = NO_SPANS,
        buffer: EventBuffer | None = None,
        on_published: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Prepare, without connecting.

        Args:
            appender: Where events are published to.
            service: ``source`` of the events.
            producer: Names this life of this process among all; sequences count per producer.
            clock: Wall clock.
            ids: New event and trace ids.
            streams: Names of the streams.
            metrics: Counters of the process.
            spans: What a tracing system sees.
            buffer: Where facts wait while the store is away; None makes publishing fail then.
            on_published: Told how many events reached their streams.
        """
        self._appender = appender
        self._service = service
        self._producer = producer.encode()
        self._clock = clock
        self._ids = ids
        self._streams = streams
        self._metrics = metrics
        self._spans = spans
        self._buffer = buffer
        self._on_published = on_published
        self._sequence = 0
        self._generation = 0
        self._queue: deque[_Outgoing] = deque()
        self._turn = asyncio.Lock()
        self._flushing: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to bring out what an earlier life left in the buffer."""
        self._drain_soon()

    async def stop(self) -> None:
        """Stop draining; the rest stays in the buffer for the next life."""
        if self._draining is not None:
            await end_task(self._draining)

    async def publish(
        self,
        event_type: str,
        payload: EventPayload,
        *,
        trace_id: str | None = None,
        causation_id: str | None = None,
        event_id: str | None = None,
    ) -> Event[Any]:
        """Append one event; see ``EventBus.publish``."""
        spec = _require_registered(event_type, payload)
        _require_text(trace_id=trace_id, causation_id=causation_id, event_id=event_id)
        inherited = current_trace() or self._new_trace(event_type, trace_id)
        outgoing = _Outgoing(
            spec=spec,
            payload=payload,
            body=encode_payload(event_type, payload),
            stream=self._streams.stream(event_type, spec.ordering_key(payload)),
            event_id=event_id or self._ids.new(),
            trace_id=trace_id or inherited.trace_id,
            causation_id=causation_id or inherited.causation_id,
            timestamp=self._clock.now(),
            done=asyncio.get_running_loop().create_future(),
        )
        self._queue.append(outgoing)
        if self._flushing is None:
            with outside_trace():  # its lines are about many events, not about the first one's trace
                self._flushing = asyncio.create_task(self._flush(), name="bus-publish")
        if not self._spans.enabled:
            return await outgoing.done
        with self._spans.publish(
            event_type,
            event_id=outgoing.event_id,
            trace_id=outgoing.trace_id,
            causation_id=outgoing.causation_id,
            symbol=getattr(payload, "symbol", None),
        ):
            return await outgoing.done

    def _new_trace(self, event_type: str, trace_id: str | None) -> TraceContext:
        if trace_id is None and self._metrics is not None:
            self._metrics.event_without_trace(event_type)
        return TraceContext(trace_id or self._ids.new())

    # -- one batch at a time ------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        batch: list[_Outgoing] = []
        try:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                async with self._turn:
                    await self._place(batch)
        except BaseException as error:
            for outgoing in (*batch, *self._queue):
                outgoing.fail(error)
            self._queue.clear()
            if not isinstance(error, Exception):
                raise
        finally:
            self._flushing = None

    async def _place(self, batch: Sequence[_Outgoing]) -> None:
        """Append ``batch``; facts go behind the backlog when there is one, commands never wait."""
        if self._buffer is None or not self._buffer.events:
            await self._send(batch)
            return
        await self._keep([outgoing for outgoing in batch if outgoing.spec.buffer_priority is not None])
        if commands := [outgoing for outgoing in batch if outgoing.spec.buffer_priority is None]:
            await self._send(commands)

    async def _send(self, batch: Sequence[_Outgoing]) -> None:
        try:
            await self._meet_the_store_as_it_was_left()
            entries = self._numbered(batch)
            results = await self._appender.append(entries)
        except ConnectionLostError as error:
            await self._fall_back(batch, error)
            return
        self._sequence += len(batch)
        appended: list[str] = []
        for outgoing, result in zip(batch, results, strict=True):
            if isinstance(result, str):
                appended.append(result)
            else:
                outgoing.fail(result)
        if self._buffer is not None and len(appended) == len(batch):
            self._buffer.remember(_as_buffered(batch, entries), appended)
        self._count_and_settle(batch)
        self._on_published(len(appended))

    def _numbered(self, batch: Sequence[_Outgoing]) -> list[NewEntry]:
        entries = []
        for number, outgoing in enumerate(batch, self._sequence + 1):
            outgoing.metadata = EventMetadata(
                event_id=outgoing.event_id,
                event_type=outgoing.spec.event_type,
                trace_id=outgoing.trace_id,
                causation_id=outgoing.causation_id,
                timestamp=outgoing.timestamp,
                source=self._service,
                sequence=number,
            )
            fields = {
                b"metadata": encode_metadata(outgoing.metadata),
                b"payload": outgoing.body,
                b"producer": self._producer,
            }
            entries.append(NewEntry(outgoing.stream, fields))
        return entries

    def _count_and_settle(self, batch: Sequence[_Outgoing]) -> None:
        for outgoing in batch:
            if self._metrics is not None and not outgoing.done.done():
                self._metrics.event_published(outgoing.spec.event_type)
            outgoing.settle()

    # -- the store is away --------------------------------------------------------------------------------------------

    async def _fall_back(self, batch: Sequence[_Outgoing], error: ConnectionLostError) -> None:
        """Put facts into the buffer; commands fail, because a late one is worse than none."""
        facts = [] if self._buffer is None else [one for one in batch if one.spec.buffer_priority is not None]
        for outgoing in batch:
            if self._buffer is None or outgoing.spec.buffer_priority is None:
                outgoing.fail(error)
        if facts and self._buffer is not None:
            if not self._buffer.events:  # once per outage; the rest goes behind these
                log.warning("events_go_to_disk", reason=str(error))
            await self._keep(facts)

    async def _keep(self, facts: Sequence[_Outgoing]) -> None:
        if not facts or self._buffer is None:
            return
        try:
            await self._buffer.append(_as_buffered(facts, self._numbered(facts)))
        except TransientError as error:
            if len(facts) == 1:
                facts[0].fail(error)
                return
            for fact in facts:  # a full buffer still takes what is never dropped
                await self._keep([fact])
            return
        self._sequence += len(facts)
        self._count_and_settle(facts)
        self._drain_soon()

    # -- the store is back --------------------------------------------------------------------------------------------

    def _drain_soon(self) -> None:
        if self._draining is None and self._buffer is not None and self._buffer.events:
            with outside_trace():
                self._draining = asyncio.create_task(self._drain(self._buffer), name="bus-drain")

    async def _drain(self, buffer: EventBuffer) -> None:
        failures = 0
        try:
            while buffer.events:
                try:
                    await self._appender.wait_available()
                    async with self._turn:
                        await self._drain_some(buffer)
                    failures = 0
                except TransientError as error:
                    failures += 1
                    delay = _BETWEEN_DRAINS.delay(failures)
                    log.warning("buffer_not_drained", left=buffer.events, reason=str(error), retry_in_seconds=delay)
                    await self._clock.sleep(delay)
            log.info("buffer_drained")
        finally:
            self._draining = None

    async def _drain_some(self, buffer: EventBuffer) -> None:
        """Move the oldest to their streams; a crash in between moves them again, under the same event ids."""
        await self._meet_the_store_as_it_was_left()
        oldest = await buffer.oldest(_DRAIN)
        results = await self._appender.append([NewEntry(entry.stream, entry.fields) for entry in oldest])
        appended = []
        for result in results:
            if not isinstance(result, str):
                raise result
            appended.append(result)
        await buffer.settle(oldest, appended)

    async def _meet_the_store_as_it_was_left(self) -> None:
        """Publish again what the store lost in an outage, before anything new; return connected.

        Nothing may wait between the return and the append: a connection made in between could lead to another master.
        """
        while not self._appender.connected or self._appender.generation != self._generation:
            await self._appender.connect()
            generation = self._appender.generation
            if self._buffer is not None:
                lost = await self._appender.missing(await self._buffer.remembered(within_seconds=_LOST_WITHIN_SECONDS))
                await self._publish_again(self._buffer, [one.entry for one in lost])
            self._generation = generation

    async def _publish_again(self, buffer: EventBuffer, lost: Sequence[BufferedEntry]) -> None:
        if not lost:
            return
        log.warning("events_lost_by_the_store_published_again", count=len(lost))
        results = await self._appender.append([NewEntry(entry.stream, entry.fields) for entry in lost])
        placed = [(entry, result) for entry, result in zip(lost, results, strict=True) if isinstance(result, str)]
        buffer.remember([entry for entry, _ in placed], [entry_id for _, entry_id in placed])
        if self._metrics is not None:
            self._metrics.events_published_again(len(placed))


def _as_buffered(batch: Sequence[_Outgoing], entries: Sequence[NewEntry]) -> list[BufferedEntry]:
    return [
        BufferedEntry(entry.stream, entry.fields, outgoing.event_id, outgoing.spec.buffer_priority or _NOT_BUFFERED)
        for outgoing, entry in zip(batch, entries, strict=True)
    ]


#: Rank of commands among what is remembered; they never enter the backlog.
_NOT_BUFFERED = 4


def _require_registered(event_type: str, payload: EventPayload) -> EventSpec:
    spec = EVENTS.get(event_type)
    if spec is None:
        raise InvalidInputError(f"event type {event_type!r} is not in the catalogue; see docs/events.md")
    if type(payload) is not spec.payload:
        raise InvalidInputError(
            f"{event_type} needs a payload of type {spec.payload.__name__}, was {type(payload).__name__}"
        )
    return spec


def _require_text(**ids: str | None) -> None:
    """Refuse an id that JSON has no word for here: further on it would take a whole batch with it."""
    for name, value in ids.items():
        if value is not None and not value.isascii() and value != value.encode(errors="ignore").decode():
            raise InvalidInputError(f"{name} {value!r} holds a lone surrogate and cannot travel")
