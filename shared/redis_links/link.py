"""What stands between the process's connection and the servers: one server, a master behind Sentinel, a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shared.errors import ConnectionLostError
from shared.redis_wire import Command, ErrorReply, RedisWire, Reply


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        connect_seconds: For the connection.
        answer_seconds: For an answer.
    """

    connect_seconds: float
    answer_seconds: float


#: For whom a late answer is better than none.
USUAL = Patience(connect_seconds=5.0, answer_seconds=10.0)
#: For finding out whether a server is there.
PROBING = Patience(connect_seconds=1.0, answer_seconds=1.0)
#: How long a blocking read waits on the server.
BLOCKING_SECONDS = 2.0

#: How the refusal of a server begins that is not, or not at present, the one to talk to.
_WRONG_SERVER = ("READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "UNBLOCKED")
#: How a server refuses whom waiting will not help: credentials, database, or the kind of URL.
_REFUSALS = (
    "WRONGPASS", "NOAUTH", "DENIED", "ERR invalid password", "ERR AUTH", "ERR Client sent AUTH", "ERR DB index",
    "ERR invalid DB index", "ERR SELECT is not allowed", "ERR This instance has cluster support disabled",
)  # fmt: skip


def refusal_behind(error: BaseException | None) -> ErrorReply | None:
    """Return the server's refusal that led to ``error`` when waiting will not help."""
    while error is not None:
        if isinstance(error, ErrorReply) and str(error).startswith(_REFUSALS):
            return error
        error = error.__cause__
    return None


async def quick_answer(wire: RedisWire, question: Command) -> Reply | None:
    """Ask over a connection in use; None when it stays silent, which leaves it as it is: others wait for answers."""
    if not wire.is_open or wire.is_late:
        return None
    answer = wire.send([question], answer_seconds=USUAL.answer_seconds)
    await asyncio.wait([answer], timeout=PROBING.answer_seconds)
    return answer.result()[0] if answer.done() and not answer.exception() else None


def is_wrong_server(reply: ErrorReply) -> bool:
    """Tell whether a server says that it is not, or not at present, the one to talk to."""
    return str(reply).startswith(_WRONG_SERVER)


class Link(Protocol):
    """A way to the servers.

    Attributes:
        generation: Counts the shared connections made; another number than before means that there was an outage, or
            that keys have moved to another server.
        connected: Whether every shared connection stands and nothing is known to have moved.
        open_wires: Shared connections that stand.
    """

    @property
    def generation(self) -> int: ...

    @property
    def connected(self) -> bool: ...

    @property
    def open_wires(self) -> int: ...

    async def connect(self) -> None:
        """Make ``connected`` true.

        Raises:
            ConnectionLostError: That cannot be had.
        """
        ...

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Send ``commands`` over the shared connections; return one reply per command, errors as ``ErrorReply``.

        Raises:
            ConnectionLostError: A server cannot be reached; any of the commands may have run.
            InvalidInputError: Nobody can say which server a command is for.
        """
        ...

    async def execute_atomically(self, commands: Sequence[Command]) -> list[Reply]:
        """Send ``commands`` as one transaction; return the replies to MULTI, to each of them, and to EXEC.

        Raises:
            ConnectionLostError: The server cannot be reached; all of them may have run, or none.
            InvalidInputError: Their keys lie in different slots of a cluster.
        """
        ...

    async def broadcast(self, command: Command) -> list[Reply]:
        """Send ``command`` to every master.

        Raises:
            ConnectionLostError: One of them cannot be reached.
        """
        ...

    async def open_wire(self, command: Command | None) -> RedisWire:
        """Return a connection of the caller's own to the server that ``command`` is for.

        Raises:
            ConnectionLostError: It cannot be reached.
        """
        ...

    def serves(self, wire: RedisWire, command: Command) -> bool:
        """Tell whether ``wire`` still leads to the server that ``command`` is for."""
        ...

    def moved(self, reply: ErrorReply) -> bool:
        """Take note of what a server says about where a key went; False when the reply says no such thing."""
        ...

    def distrust(self, command: Command, why: str) -> None:
        """Drop the shared connection that ``command`` went over: its server says that it is not the one to talk to."""
        ...

    async def probe(self) -> None:
        """Find out quickly whether the servers answer, and connect to them when they do.

        Raises:
            ConnectionLostError: They do not.
        """
        ...

    def drop(self, why: str) -> None:
        """End every shared connection, and every attempt at one; who waits for them gets ConnectionLostError."""
        ...

    async def close(self) -> None:
        """End everything."""
        ...


class SharedAttempt:
    """An attempt that is made once for all who want its result at the same time."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._why = ""

    async def join(self) -> None:
        """Wait for the attempt under way, or for a new one; raises what it raised.

        Raises:
            ConnectionLostError: It was abandoned.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
            self._task.add_done_callback(_mark_as_seen)
        task = self._task
        await asyncio.wait([task])  # who stops waiting ends nothing for the others
        if task.cancelled():
            raise ConnectionLostError(self._why)
        task.result()

    def abandon(self, why: str) -> None:
        """End the attempt under way."""
        if self._task is not None:
            self._why = why
            self._task.cancel()


def _mark_as_seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
