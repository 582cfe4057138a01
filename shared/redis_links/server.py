"""One server: a fixed one, or whichever is the master at present."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from shared.errors import ConnectionLostError
from shared.redis_links.link import PROBING, USUAL, Patience, SharedAttempt, quick_answer
from shared.redis_topology import Endpoint
from shared.redis_wire import Command, ErrorReply, RedisWire, Reply


class Locator(Protocol):
    """Knows where the server is."""

    async def open(self, patience: Patience, on_late: Callable[[], None] | None) -> RedisWire:
        """Return a new connection to the server.

        Raises:
            ConnectionLostError: It cannot be reached.
        """
        ...

    async def close(self) -> None:
        """End what runs in the background."""
        ...


class FixedServer:
    """``Locator`` of a server that never moves."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def open(self, patience: Patience, on_late: Callable[[], None] | None) -> RedisWire:
        return await RedisWire.open(
            self._endpoint,
            connect_seconds=patience.connect_seconds,
            answer_seconds=patience.answer_seconds,
            on_late=on_late,
        )

    async def close(self) -> None:
        """Nothing runs."""


class ServerLink:
    """``Link`` to one server, over one connection that all tasks share."""

    def __init__(self, locator: Locator, *, on_late: Callable[[], None], on_reconnect: Callable[[bool], None]) -> None:
        """Prepare, without connecting.

        Args:
            locator: Knows the server.
            on_late: Called when an answer is late.
            on_reconnect: Called after every connection but the first; True means that it leads to another server.
        """
        self._locator = locator
        self._on_late = on_late
        self._on_reconnect = on_reconnect
        self._wire: RedisWire | None = None
        self._connecting = SharedAttempt(self._connect)
        self._generation = 0

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def connected(self) -> bool:
        return self._wire is not None and self._wire.is_open

    @property
    def open_wires(self) -> int:
        return int(self.connected)

    async def connect(self) -> None:
        await self._open_shared()

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        wire = self._wire
        if wire is None or not wire.is_open:
            wire = await self._open_shared()
        return await wire.send(commands, answer_seconds=USUAL.answer_seconds)

    async def execute_atomically(self, commands: Sequence[Command]) -> list[Reply]:
        return await self.execute([("MULTI",), *commands, ("EXEC",)])

    async def broadcast(self, command: Command) -> list[Reply]:
        return await self.execute([command])

    async def open_wire(self, command: Command | None) -> RedisWire:
        return await self._locator.open(USUAL, self._on_late)

    def serves(self, wire: RedisWire, command: Command) -> bool:
        return self._wire is None or wire.endpoint == self._wire.endpoint

    def moved(self, reply: ErrorReply) -> bool:
        return False

    def distrust(self, command: Command, why: str) -> None:
        if self._wire is not None:
            self._wire.close(why)

    async def probe(self) -> None:
        wire = self._wire
        if wire is not None and (reply := await quick_answer(wire, ("PING",))) is not None:
            _require_answer(wire, reply)
            return
        fresh = await self._probed()
        # The old connection may be dead alone: a firewall may have forgotten it. Or it was only slow.
        if wire is not None and await quick_answer(wire, ("PING",)) is not None:
            fresh.close()
        else:
            self._adopt(fresh, instead_of=wire)

    def drop(self, why: str) -> None:
        self._connecting.abandon(why)
        if self._wire is not None:
            self._wire.close(why)

    async def close(self) -> None:
        self.drop("the connection was closed")
        await self._locator.close()

    async def _open_shared(self) -> RedisWire:
        while (wire := self._wire) is None or not wire.is_open:
            await self._connecting.join()
        return wire

    async def _connect(self) -> None:
        before = self._wire
        self._adopt(await self._locator.open(USUAL, self._on_late), instead_of=before)

    async def _probed(self) -> RedisWire:
        wire = await self._locator.open(PROBING, self._on_late)
        try:
            (reply,) = await wire.send([("PING",)], answer_seconds=PROBING.answer_seconds)
            _require_answer(wire, reply)
        except BaseException:
            wire.close()
            raise
        return wire

    def _adopt(self, wire: RedisWire, *, instead_of: RedisWire | None) -> None:
        if self._wire is not instead_of:  # request and probe may connect at the same time; one connection is enough
            wire.close()
            return
        if instead_of is not None:
            instead_of.close("it stopped answering")
        self._wire = wire
        self._generation += 1
        if instead_of is not None:
            self._on_reconnect(wire.endpoint != instead_of.endpoint)


def _require_answer(wire: RedisWire, reply: Reply) -> None:
    if isinstance(reply, ErrorReply) and not str(reply).startswith("NOPERM"):  # an ACL may forbid PING
        raise ConnectionLostError(f"Redis at {wire.endpoint} cannot be used: {reply}") from reply
