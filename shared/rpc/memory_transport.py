"""RPC inside one process: for tests and for replay, with the same rules as over Redis."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from shared.rpc.messages import CallKey, Fields
from shared.rpc.transport import Busy, Claim, Delivery, Done, Granted, Reply, Settlement

#: A request that nobody held for this long belongs to a dead replica.
RECLAIM_AFTER_SECONDS = 15.0
#: Longest wait of one ``receive``.
WAIT_SECONDS = 2.0
_CANCELLATIONS_KEPT = 1000

T = TypeVar("T")


@dataclass(slots=True)
class _Taken:
    """A request that a replica took and did not settle."""

    delivery: Delivery
    instance: str
    touched: float


@dataclass(slots=True)
class _Claimed:
    """A call with an effect that is run, or was."""

    entry_id: str
    fingerprint: bytes
    result: Fields | None = None


@dataclass(slots=True)
class _Asked:
    """What is asked of one service."""

    new: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)
    taken: dict[str, _Taken] = field(default_factory=dict)
    claims: dict[CallKey, _Claimed] = field(default_factory=dict)
    cancelled: deque[Fields] = field(default_factory=lambda: deque(maxlen=_CANCELLATIONS_KEPT))
    feeds: list[asyncio.Queue[Fields]] = field(default_factory=list)


class MemoryRpcTransport:
    """One object, shared by all callers and responders that shall hear each other."""

    def __init__(self, *, reclaim_after_seconds: float = RECLAIM_AFTER_SECONDS) -> None:
        self._reclaim_after_seconds = reclaim_after_seconds
        self._asked: defaultdict[str, _Asked] = defaultdict(_Asked)
        self._inboxes: defaultdict[tuple[str, str], asyncio.Queue[Fields]] = defaultdict(asyncio.Queue)
        self._entries = 0

    def caller(self, service: str, instance: str) -> MemoryCallerChannel:
        """Return the channel of one calling process."""
        return MemoryCallerChannel(self, self._inboxes[service, instance])

    def responder(self, service: str, instance: str) -> MemoryResponderChannel:
        """Return the channel of one answering process."""
        return MemoryResponderChannel(self, self._asked[service], instance, self._reclaim_after_seconds)

    def claims(self, service: str) -> MemoryClaimBook:
        """Return the claims of ``service``."""
        return MemoryClaimBook(self._asked[service].claims)

    def cancellations(self, service: str) -> MemoryCancellationFeed:
        """Return what the callers of ``service`` no longer wait for."""
        return MemoryCancellationFeed(self._asked[service])

    def put_request(self, service: str, fields: Fields) -> None:
        """Queue a request for the replicas of ``service``."""
        self._entries += 1
        self._asked[service].new.put_nowait(Delivery(str(self._entries), fields))

    def put_cancellation(self, service: str, fields: Fields) -> None:
        """Tell every replica of ``service``."""
        self._asked[service].cancelled.append(fields)
        for feed in self._asked[service].feeds:
            feed.put_nowait(fields)

    def put_answer(self, reply: Reply) -> None:
        """Queue an answer in its caller's inbox."""
        self._inboxes[reply.service, reply.instance].put_nowait(reply.fields)

    def unsettled(self, service: str) -> int:
        """Return how many requests of ``service`` wait or are in hand."""
        asked = self._asked[service]
        return asked.new.qsize() + len(asked.taken)


class MemoryCallerChannel:
    """One caller's way into the transport."""

    def __init__(self, transport: MemoryRpcTransport, inbox: asyncio.Queue[Fields]) -> None:
        self._transport = transport
        self._inbox = inbox

    async def open(self) -> None:
        _empty(self._inbox)  # answers to an earlier life

    async def send(self, service: str, *, requests: Sequence[Fields], cancellations: Sequence[Fields]) -> None:
        for fields in requests:
            self._transport.put_request(service, fields)
        for fields in cancellations:
            self._transport.put_cancellation(service, fields)

    async def receive(self) -> Sequence[Fields]:
        return await _next(self._inbox, WAIT_SECONDS)

    async def close(self) -> None:
        _empty(self._inbox)


class MemoryResponderChannel:
    """One replica's way into the transport."""

    def __init__(
        self, transport: MemoryRpcTransport, asked: _Asked, instance: str, reclaim_after_seconds: float
    ) -> None:
        self._transport = transport
        self._asked = asked
        self._instance = instance
        self._patience_seconds = reclaim_after_seconds

    @property
    def patience_seconds(self) -> float:
        return self._patience_seconds

    async def open(self) -> Sequence[Delivery]:
        return [self._take(taken) for taken in self._asked.taken.values() if taken.instance == self._instance]

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Delivery]:
        new = await _next(self._asked.new, WAIT_SECONDS if wait else 0)
        for delivery in new:
            self._asked.taken[delivery.entry_id] = _Taken(delivery, self._instance, _now())
        return new

    async def take_over(self, limit: int) -> Sequence[Delivery]:
        latest = _now() - self._patience_seconds
        abandoned = [taken for taken in self._asked.taken.values() if taken.touched <= latest]
        return [self._take(taken) for taken in abandoned[:limit]]

    async def hold(self, entry_ids: Sequence[str]) -> None:
        for entry_id in entry_ids:
            if taken := self._asked.taken.get(entry_id):
                self._take(taken)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[None]:
        for settlement in settlements:
            if settlement.result is not None:
                self._asked.claims[settlement.result.key].result = settlement.result.fields
            if settlement.reply is not None:
                self._transport.put_answer(settlement.reply)
            self._asked.taken.pop(settlement.entry_id, None)
        return [None] * len(settlements)

    async def close(self) -> None:
        """Leave what is not settled to whoever opens next or finds it abandoned."""

    def _take(self, taken: _Taken) -> Delivery:
        taken.instance, taken.touched = self._instance, _now()
        return Delivery(taken.delivery.entry_id, taken.delivery.fields, taken_over=True)


class MemoryClaimBook:
    """The claims of one service."""

    def __init__(self, claims: dict[CallKey, _Claimed]) -> None:
        self._claims = claims

    async def claim(self, key: CallKey, *, entry_id: str, fingerprint: bytes) -> Claim:
        claimed = self._claims.setdefault(key, _Claimed(entry_id, fingerprint))
        if claimed.result is not None:
            return Done(claimed.fingerprint, claimed.result)
        return Granted() if claimed.entry_id == entry_id else Busy()

    async def keep(self, keys: Sequence[CallKey]) -> None:
        """Nothing expires here."""

    async def release(self, key: CallKey, *, entry_id: str) -> None:
        claimed = self._claims.get(key)
        if claimed is not None and claimed.entry_id == entry_id and claimed.result is None:
            del self._claims[key]


class MemoryCancellationFeed:
    """One replica's ear."""

    def __init__(self, asked: _Asked) -> None:
        self._feeds = asked.feeds
        self._heard: asyncio.Queue[Fields] = asyncio.Queue()
        for fields in asked.cancelled:
            self._heard.put_nowait(fields)
        self._feeds.append(self._heard)

    async def receive(self) -> Sequence[Fields]:
        return await _next(self._heard, WAIT_SECONDS)

    async def close(self) -> None:
        if self._heard in self._feeds:
            self._feeds.remove(self._heard)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _empty(queue: asyncio.Queue[T]) -> None:
    while not queue.empty():
        queue.get_nowait()


async def _next(queue: asyncio.Queue[T], seconds: float) -> list[T]:
    """Return one item, so that replicas share a burst, or none after ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            return [await queue.get()]
    except TimeoutError:
        return []
