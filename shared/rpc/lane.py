"""The way to one service: what is asked in the same moment travels together, one batch at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

import structlog

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import TransientError
from shared.rpc.messages import Fields
from shared.rpc.transport import CallerChannel

#: Requests that travel together.
_BATCH = 256
#: Cancellations that wait for the transport; the server's own deadlines do the rest.
_MOST_CANCELLATIONS = 1000

log = structlog.get_logger(__name__)


class Lane:
    """Sends in the background; what could not be sent is tried again for as long as its caller waits.

    Each service has a lane of its own: on a cluster its requests can be out of reach while others are not.
    """

    def __init__(
        self,
        channel: CallerChannel,
        service: str,
        *,
        is_waited_for: Callable[[str], bool],
        clock: Clock,
        backoff: Backoff,
    ) -> None:
        """Prepare.

        Args:
            channel: Where requests go.
            service: Service that they go to.
            is_waited_for: Tells whether a request id still has a caller.
            clock: For the delays between tries.
            backoff: Their lengths.
        """
        self._channel = channel
        self._service = service
        self._is_waited_for = is_waited_for
        self._clock = clock
        self._backoff = backoff
        self._requests: dict[str, Fields] = {}
        self._cancellations: list[Fields] = []
        self._flushing: asyncio.Task[None] | None = None

    def send(self, request_id: str, fields: Fields) -> None:
        """Send a request."""
        self._requests[request_id] = fields
        self._flush_soon()

    def withdraw(self, request_id: str, cancellation: Callable[[], Fields]) -> None:
        """Do not send a request that waits here; tell the service of one that may have left."""
        if self._requests.pop(request_id, None) is None and len(self._cancellations) < _MOST_CANCELLATIONS:
            self._cancellations.append(cancellation())
            self._flush_soon()

    async def close(self, seconds: float) -> None:
        """Send what is left, for at most ``seconds``."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing], timeout=seconds)
            await end_task(self._flushing)

    def _flush_soon(self) -> None:
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.get_running_loop().create_task(self._flush(), name="rpc-lane")

    async def _flush(self) -> None:
        failures = 0
        while self._requests or self._cancellations:
            batch = dict(islice(self._requests.items(), _BATCH))
            for request_id in batch:
                del self._requests[request_id]
            cancellations, self._cancellations = self._cancellations, []
            try:
                await self._channel.send(self._service, requests=tuple(batch.values()), cancellations=cancellations)
                failures = 0
            except TransientError as error:
                failures += 1
                log.warning("rpc_send_failed", target=self._service, error=str(error), failures=failures)
                await self._clock.sleep(self._backoff.delay(failures))
                self._put_back(batch)
            except Exception:
                log.exception("rpc_send_failed", target=self._service)  # trying the same again would not help

    def _put_back(self, batch: dict[str, Fields]) -> None:
        again = {request_id: fields for request_id, fields in batch.items() if self._is_waited_for(request_id)}
        self._requests = again | self._requests
