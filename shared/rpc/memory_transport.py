"""RPC inside one process: for tests and for replay, with the same rules as over Redis."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from shared.rpc.messages import Fields
from shared.rpc.transport import Busy, Claim, Delivery, Done, Granted, Reply

#: A request that nobody touched for this long belongs to a dead replica.
RECLAIM_AFTER_SECONDS = 15.0
#: Longest wait of one ``receive``.
WAIT_SECONDS = 2.0

T = TypeVar("T")


@dataclass(slots=True)
class _Taken:
    """A request that a replica took and did not settle."""

    delivery: Delivery
    instance: str
    touched: float


@dataclass(slots=True)
class _Requests:
    """What is asked of one service."""

    new: asyncio.Queue[Delivery] = field(default_factory=asyncio.Queue)
    taken: dict[str, _Taken] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)  # request id -> entry that runs it
    results: dict[str, Fields] = field(default_factory=dict)


class MemoryRpcTransport:
    """One object, shared by all callers and responders that shall hear each other."""

    def __init__(self, *, reclaim_after_seconds: float = RECLAIM_AFTER_SECONDS) -> None:
        self._reclaim_after_seconds = reclaim_after_seconds
        self._requests: defaultdict[str, _Requests] = defaultdict(_Requests)
        self._inboxes: defaultdict[tuple[str, str], asyncio.Queue[Fields]] = defaultdict(asyncio.Queue)
        self._entries = 0

    def caller(self, service: str, instance: str) -> MemoryCallerChannel:
        """Return the channel of one calling process."""
        return MemoryCallerChannel(self, self._inboxes[service, instance])

    def responder(self, service: str, instance: str) -> MemoryResponderChannel:
        """Return the channel of one answering process."""
        return MemoryResponderChannel(self, self._requests[service], instance, self._reclaim_after_seconds)

    def put_request(self, service: str, fields: Fields) -> None:
        """Queue a request for the replicas of ``service``."""
        self._entries += 1
        self._requests[service].new.put_nowait(Delivery(str(self._entries), fields))

    def put_answer(self, reply: Reply) -> None:
        """Queue an answer in its caller's inbox."""
        self._inboxes[reply.service, reply.instance].put_nowait(reply.fields)

    def unsettled(self, service: str) -> int:
        """Return how many requests of ``service`` wait or are in hand."""
        requests = self._requests[service]
        return requests.new.qsize() + len(requests.taken)


class MemoryCallerChannel:
    """One caller's way into the transport."""

    def __init__(self, transport: MemoryRpcTransport, inbox: asyncio.Queue[Fields]) -> None:
        self._transport = transport
        self._inbox = inbox

    async def open(self) -> None:
        _empty(self._inbox)  # answers to an earlier life

    async def send(self, service: str, fields: Fields) -> None:
        self._transport.put_request(service, fields)

    async def receive(self) -> Sequence[Fields]:
        return await _next(self._inbox, WAIT_SECONDS)

    async def close(self) -> None:
        _empty(self._inbox)


class MemoryResponderChannel:
    """One replica's way into the transport."""

    def __init__(
        self, transport: MemoryRpcTransport, requests: _Requests, instance: str, reclaim_after_seconds: float
    ) -> None:
        self._transport = transport
        self._requests = requests
        self._instance = instance
        self._reclaim_after_seconds = reclaim_after_seconds

    async def open(self) -> Sequence[Delivery]:
        left = [taken for taken in self._requests.taken.values() if taken.instance == self._instance]
        return [self._take(taken.delivery) for taken in left]

    async def receive(self) -> Sequence[Delivery]:
        new = await _next(self._requests.new, min(WAIT_SECONDS, self._reclaim_after_seconds))
        return [self._take(delivery) for delivery in new or self._abandoned()]

    async def claim(self, request_id: str, entry_id: str) -> Claim:
        if result := self._requests.results.get(request_id):
            return Done(result)
        owner = self._requests.owners.setdefault(request_id, entry_id)
        return Granted() if owner == entry_id else Busy()

    async def settle(self, delivery: Delivery, reply: Reply | None) -> None:
        if reply is not None:
            if reply.stored_as is not None:
                self._requests.results[reply.stored_as] = reply.fields
            self._transport.put_answer(reply)
        self._requests.taken.pop(delivery.entry_id, None)

    async def hold(self, entry_ids: Sequence[str]) -> None:
        for entry_id in entry_ids:
            if taken := self._requests.taken.get(entry_id):
                self._take(taken.delivery)

    async def close(self) -> None:
        """Leave what is not settled to whoever opens next or finds it abandoned."""

    def _abandoned(self) -> list[Delivery]:
        latest = _now() - self._reclaim_after_seconds
        return [taken.delivery for taken in self._requests.taken.values() if taken.touched <= latest]

    def _take(self, delivery: Delivery) -> Delivery:
        self._requests.taken[delivery.entry_id] = _Taken(delivery, self._instance, _now())
        return delivery


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
