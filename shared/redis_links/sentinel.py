"""Which server is the master, as the sentinels say; a failover is noticed when it is announced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import ConnectionLostError
from shared.redis_links.link import PROBING, Patience
from shared.redis_topology import Endpoint, SentinelGroup
from shared.redis_wire import ErrorReply, RedisWire, Reply

log = structlog.get_logger(__name__)

_ANNOUNCEMENT = "+switch-master"
#: A sentinel that has announced nothing for so long is asked anew, in case its connection is dead.
_LONGEST_SILENCE_SECONDS = 30.0
#: Between two rounds through all sentinels; they are few, and an announcement must not be missed.
_BETWEEN_ROUNDS_SECONDS = 0.5


class SentinelMaster:
    """``Locator`` of the master: asks the sentinels in turn, and checks that whom they name is a master.

    A sentinel that answered is asked first the next time.
    """

    def __init__(self, group: SentinelGroup, *, clock: Clock, on_switch: Callable[[], None]) -> None:
        """Prepare, without connecting.

        Args:
            group: The sentinels.
            clock: Wall clock.
            on_switch: Called when a sentinel announces another master than before.
        """
        self._group = group
        self._sentinels = list(group.sentinels)
        self._clock = clock
        self._on_switch = on_switch
        self._master: Endpoint | None = None
        self._listening: asyncio.Task[None] | None = None

    async def open(self, patience: Patience, on_late: Callable[[], None] | None) -> RedisWire:
        refused: dict[Endpoint, ConnectionLostError] = {}
        problem = ConnectionLostError("there is no sentinel")
        for sentinel in tuple(self._sentinels):
            try:
                master = await self._ask(sentinel)
                if master in refused:  # several sentinels, one opinion
                    continue
            except ConnectionLostError as error:
                problem = error
                continue
            try:
                wire = await _open_master(master, patience, on_late)
            except ConnectionLostError as error:
                problem = refused[master] = error
                continue
            self._prefer(sentinel)
            self._master = master
            if self._listening is None or self._listening.done():
                self._listening = asyncio.create_task(self._listen(), name="redis-sentinel")
            return wire
        name = self._group.master_name
        raise ConnectionLostError(f"no sentinel leads to the master {name!r}: {problem}") from problem

    async def close(self) -> None:
        if self._listening is not None:
            await end_task(self._listening)

    # -- asking -------------------------------------------------------------------------------------------------------

    async def _ask(self, sentinel: Endpoint) -> Endpoint:
        name = self._group.master_name
        wire = await _open_sentinel(sentinel)
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        try:
            (reply,) = await wire.send([question], answer_seconds=PROBING.answer_seconds)
        finally:
            wire.close()
        if isinstance(reply, ErrorReply):
            raise ConnectionLostError(f"the sentinel at {sentinel} does not answer: {reply}") from reply
        if reply is None:
            raise ConnectionLostError(f"the sentinel at {sentinel} knows no master {name!r}")
        host, port = reply
        return self._group.server.at(host.decode(), int(port))

    def _prefer(self, sentinel: Endpoint) -> None:
        self._sentinels.remove(sentinel)
        self._sentinels.insert(0, sentinel)

    # -- listening ----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            for sentinel in tuple(self._sentinels):
                try:
                    await self._listen_to(sentinel)
                except ConnectionLostError as error:  # silent or gone: the next one may know more
                    log.debug("sentinel_left", reason=str(error))
            await self._clock.sleep(_BETWEEN_ROUNDS_SECONDS)

    async def _listen_to(self, sentinel: Endpoint) -> None:
        wire = await _open_sentinel(sentinel)
        try:
            (reply,) = await wire.send([("SUBSCRIBE", _ANNOUNCEMENT)], answer_seconds=PROBING.answer_seconds)
            if isinstance(reply, ErrorReply):
                raise ConnectionLostError(f"the sentinel at {sentinel} takes no subscription: {reply}") from reply
            self._learn(await self._ask(sentinel))  # what was announced while nobody listened
            while True:
                (said,) = await wire.receive(answer_seconds=_LONGEST_SILENCE_SECONDS)
                self._hear(said)
        finally:
            wire.close()

    def _hear(self, said: Reply) -> None:
        words = said[2].decode().split() if said[0] == b"message" else []
        if len(words) == 5 and words[0] == self._group.master_name:
            self._learn(self._group.server.at(words[3], int(words[4])))

    def _learn(self, master: Endpoint) -> None:
        if master != self._master:
            log.info("redis_master_switched", before=str(self._master), now=str(master))
            self._master = master
            self._on_switch()


async def _open_sentinel(sentinel: Endpoint) -> RedisWire:
    return await RedisWire.open(
        sentinel, connect_seconds=PROBING.connect_seconds, answer_seconds=PROBING.answer_seconds
    )


async def _open_master(master: Endpoint, patience: Patience, on_late: Callable[[], None] | None) -> RedisWire:
    wire = await RedisWire.open(
        master, connect_seconds=patience.connect_seconds, answer_seconds=patience.answer_seconds, on_late=on_late
    )
    try:
        (reply,) = await wire.send([("ROLE",)], answer_seconds=patience.answer_seconds)
        if isinstance(reply, ErrorReply):
            if not str(reply).startswith("NOPERM"):  # an ACL may hide ROLE; then READONLY will tell
                raise ConnectionLostError(f"Redis at {master} cannot be used: {reply}") from reply
        elif reply[0] != b"master":
            raise ConnectionLostError(f"Redis at {master} is no master any more but a {reply[0].decode()}")
    except BaseException:
        wire.close()
        raise
    return wire
