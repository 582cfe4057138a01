"""A connection of its own for commands that wait on the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.errors import ConnectionLostError, TransientError
from shared.redis_links.link import BLOCKING_SECONDS, USUAL, Link, SharedAttempt, is_wrong_server
from shared.redis_links.prober import Prober
from shared.redis_wire import Command, ErrorReply, RedisWire, Reply

#: Redirections of one command that a cluster may need while slots move.
_MOST_REDIRECTIONS = 8


class BlockingReader:
    """A connection for commands that wait on the server, one at a time."""

    def __init__(self, link: Link, prober: Prober, *, on_close: Callable[[BlockingReader], None]) -> None:
        self._link = link
        self._prober = prober
        self._on_close = on_close
        self._wire: RedisWire | None = None
        self._next_command: Command = ()
        self._opening = SharedAttempt(self._open)
        self._closed = False

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands."""
        return self._wire is not None and self._wire.is_open

    async def execute(self, command: Command, *, wait_seconds: float = BLOCKING_SECONDS) -> Reply:
        """Send one command that the server may answer after ``wait_seconds``; return its raw reply.

        Raises:
            ConnectionLostError: The server cannot be reached, or stays silent for much longer than that.
            TransientError: The server refused the command.
        """
        if self._closed:
            raise ConnectionLostError("the reader was closed")
        await self._prober.admit()
        try:
            for _ in range(_MOST_REDIRECTIONS):
                wire = await self._wire_for(command)
                reply = await self._ask(wire, command, wait_seconds)
                if not isinstance(reply, ErrorReply):
                    return reply
                if not self._link.moved(reply):
                    self._refuse(wire, command, reply)
        except ConnectionLostError:
            self._prober.wake()
            raise
        raise ConnectionLostError(f"the Redis cluster sends {command[0]!s} from one node to the next")

    def drop(self, why: str) -> None:
        """End the connection, or the attempt at one; the next command makes another one."""
        self._opening.abandon(why)
        if self._wire is not None:
            self._wire.close(why)

    async def close(self) -> None:
        """End the connection for good; a command that waits ends with ConnectionLostError."""
        self._closed = True
        self.drop("the reader was closed")
        self._on_close(self)

    async def _wire_for(self, command: Command) -> RedisWire:
        wire = self._wire
        if wire is not None and wire.is_open and not self._link.serves(wire, command):
            wire.close()
        self._next_command = command
        while (wire := self._wire) is None or not wire.is_open:
            if self._closed:
                raise ConnectionLostError("the reader was closed")
            await self._opening.join()
        return wire

    async def _open(self) -> None:
        self._wire = await self._link.open_wire(self._next_command)

    async def _ask(self, wire: RedisWire, command: Command, wait_seconds: float) -> Reply:
        try:
            (reply,) = await wire.send([command], answer_seconds=USUAL.answer_seconds, wait_seconds=wait_seconds)
        except asyncio.CancelledError:
            wire.close()  # else what it answers later would reach nobody, and entries with it
            raise
        return reply

    def _refuse(self, wire: RedisWire, command: Command, reply: ErrorReply) -> None:
        if is_wrong_server(reply):
            wire.close()
            self._link.distrust(command, str(reply))
            raise ConnectionLostError(f"Redis at {wire.endpoint} cannot be used: {reply}") from reply
        raise TransientError(f"Redis refused {command[0]!s}: {reply}") from reply
