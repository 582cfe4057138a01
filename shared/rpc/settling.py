"""Settles deliveries in batches: what was finished in the same moment travels together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.errors import TransientError
from shared.rpc.messages import RESULT_LIFETIME_SECONDS
from shared.rpc.transport import ResponderChannel, Settlement

#: Settlements that travel together.
_BATCH = 256
#: From this many unsettled ones on no new requests are read.
_MOST_WAITING = 2000
_BETWEEN_TRIES = Backoff(base_seconds=0.05, factor=2.0, cap_seconds=2.0)

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A settlement on its way; it is tried until ``until`` on the loop's clock."""

    settlement: Settlement
    until: float
    failures: int = 0
    again: asyncio.TimerHandle | None = None


class Settler:
    """Brings settlements to the transport, again and again while that is away.

    What fails waits by itself: an inbox that cannot be written delays nobody else's answer.
    """

    def __init__(self, channel: ResponderChannel, *, on_end: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            channel: Where they go.
            on_end: Told the entry id of every settlement that is done or given up.
        """
        self._channel = channel
        self._on_end = on_end
        self._unsettled: dict[_Waiting, None] = {}
        self._queue: deque[_Waiting] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def put(self, settlement: Settlement, *, seconds: float) -> None:
        """Settle soon, and try for ``seconds``; a result that must be stored is tried for as long as it would be kept.

        What is given up stays with the transport, and comes back as what a dead replica left.
        """
        if settlement.result is not None:
            seconds = RESULT_LIFETIME_SECONDS
        waiting = _Waiting(settlement, asyncio.get_running_loop().time() + seconds)
        self._unsettled[waiting] = None
        self._is_empty.clear()
        if len(self._unsettled) >= _MOST_WAITING:
            self._has_room.clear()
        self._send_soon(waiting)

    async def wait_for_room(self) -> None:
        """Wait until few enough are on their way."""
        await self._has_room.wait()

    async def close(self, seconds: float) -> None:
        """Settle what is left, for at most ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._is_empty.wait()
        except TimeoutError:
            log.warning("rpc_requests_left", count=len(self._unsettled))
        for waiting in self._unsettled:
            if waiting.again is not None:
                waiting.again.cancel()
        if self._flushing is not None:
            await end_task(self._flushing)

    def _send_soon(self, waiting: _Waiting) -> None:
        self._queue.append(waiting)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush(), name="rpc-settler")

    async def _flush(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
            outcomes: Sequence[TransientError | None]
            try:
                outcomes = await self._channel.settle([waiting.settlement for waiting in batch])
            except Exception:
                log.exception("rpc_settlement_failed", count=len(batch))
                outcomes = [None] * len(batch)  # trying what the transport does not understand again would not help
            self._note(batch, outcomes)

    def _note(self, batch: Sequence[_Waiting], outcomes: Sequence[TransientError | None]) -> None:
        failed = []
        for waiting, error in zip(batch, outcomes, strict=True):
            if error is None:
                self._end(waiting)
            else:
                failed.append(error)
                self._try_later(waiting)
        if failed:
            log.warning("rpc_answers_delayed", count=len(failed), error=str(failed[0]))
        if len(self._unsettled) < _MOST_WAITING:
            self._has_room.set()
        if not self._unsettled:
            self._is_empty.set()

    def _try_later(self, waiting: _Waiting) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= waiting.until:
            log.warning("rpc_request_left", entry_id=waiting.settlement.entry_id)
            self._end(waiting)
            return
        waiting.failures += 1
        waiting.again = loop.call_later(_BETWEEN_TRIES.delay(waiting.failures), self._send_soon, waiting)

    def _end(self, waiting: _Waiting) -> None:
        del self._unsettled[waiting]
        self._on_end(waiting.settlement.entry_id)
