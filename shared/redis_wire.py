"""One connection to one Redis server that pipelines: commands leave as they come, answers are matched in their order.

redis-py spends most of a command's time on packing it and on reading one answer at a time; on the bus that is most of
an event's time. Here a caller hands over any number of commands at once, many callers share the socket, and hiredis
parses whatever has arrived in one go. Connecting, authentication and the choice of the server stay simple: a wire never
reconnects and never repeats anything.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import hiredis

from shared.errors import ConnectionLostError
from shared.redis_topology import Endpoint, tls_context

#: One part of a command; numbers are written as text.
Part: TypeAlias = bytes | str | int | float
Command: TypeAlias = Sequence[Part]
#: What Redis answers, undecoded: bytes, int, None, or a list of them; an error as ``ErrorReply``.
Reply: TypeAlias = Any
ErrorReply = hiredis.ReplyError

#: A socket that takes no more than this is one whose server does not read; writing on would only fill our memory.
_MAX_UNSENT_BYTES = 64 * 1024 * 1024
#: An answer that takes longer than this (beside what the command itself may wait) is worth a look at the server.
LATE_SECONDS = 1.0


#: How the usual sizes of parts are written; an event has nine parts, so this is worth its lines.
_KNOWN_SIZES = 4096
_SIZES = [b"\r\n$%d\r\n" % size for size in range(_KNOWN_SIZES)]


def pack(commands: Sequence[Command]) -> bytes:
    """Return ``commands`` as they travel (RESP arrays of bulk strings)."""
    out: list[bytes] = []
    for command in commands:
        out.append(b"*%d" % len(command))
        for part in command:
            data = part if isinstance(part, bytes) else str(part).encode()
            size = len(data)
            out.append(_SIZES[size] if size < _KNOWN_SIZES else b"\r\n$%d\r\n" % size)
            out.append(data)
        out.append(b"\r\n")
    return b"".join(out)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A caller whose answers are still to come; times are the loop's."""

    answer: asyncio.Future[list[Reply]]
    count: int
    late_at: float
    deadline: float
    replies: list[Reply] = field(default_factory=list)


class RedisWire(asyncio.Protocol):
    """A live connection; made by ``open``.

    Attributes:
        endpoint: The server at the other end.
    """

    def __init__(self, endpoint: Endpoint, *, on_late: Callable[[], None] | None = None) -> None:
        self.endpoint = endpoint
        self._on_late = on_late
        self._parser = hiredis.Reader()
        self._waiting: deque[_Waiting] = deque()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._why_closed: str | None = None

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        *,
        connect_seconds: float,
        answer_seconds: float,
        on_late: Callable[[], None] | None = None,
    ) -> RedisWire:
        """Connect and authenticate.

        Args:
            endpoint: The server.
            connect_seconds: Longest wait for the connection.
            answer_seconds: Longest wait for its answer to the credentials.
            on_late: Called, once a second, while the connection ``is_late``.

        Raises:
            ConnectionLostError: The server cannot be reached in time, or refuses the credentials or the database
                (then the cause is an ``ErrorReply``).
        """
        wire = cls(endpoint, on_late=on_late)
        try:
            await wire._connect(connect_seconds)
            if commands := _greeting(endpoint):
                for reply in await wire.send(commands, answer_seconds=answer_seconds):
                    if isinstance(reply, ErrorReply):
                        raise ConnectionLostError(f"Redis at {endpoint} refuses the connection: {reply}") from reply
        except BaseException:
            wire.close()
            raise
        return wire

    @property
    def is_open(self) -> bool:
        """Whether commands can still be sent."""
        return self._why_closed is None

    @property
    def is_late(self) -> bool:
        """Whether an answer is later than ``LATE_SECONDS`` and nothing at all has come for as long."""
        now = asyncio.get_running_loop().time()
        return bool(self._waiting) and max(self._waiting[0].late_at, self._heard_at + LATE_SECONDS) <= now

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._waiting

    def send(
        self, commands: Sequence[Command], *, answer_seconds: float, wait_seconds: float = 0.0
    ) -> asyncio.Future[list[Reply]]:
        """Send ``commands`` at once; the future holds one reply per command, errors as ``ErrorReply``.

        The future raises ConnectionLostError when the connection ends first, or when the answer takes longer than
        ``wait_seconds`` (what the commands ask the server to wait) and ``answer_seconds`` together; a connection that
        does not answer is closed, because what comes late would be taken for the answer to something else. Who stops
        waiting changes nothing for the others.

        Raises:
            ConnectionLostError: The connection is closed already.
        """
        transport = self._require_open()
        if transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self._end(f"it reads nothing, and {_MAX_UNSENT_BYTES} bytes wait for it")
            raise self._lost()
        answer = self._expect(len(commands), answer_seconds, wait_seconds)
        transport.write(pack(commands))
        if not commands:
            self._hand_out()  # nothing will come that could settle it
        return answer

    def receive(self, *, answer_seconds: float) -> asyncio.Future[list[Reply]]:
        """Wait for one thing that the server says unasked, to who has subscribed; a future like that of ``send``.

        Raises:
            ConnectionLostError: The connection is closed already.
        """
        self._require_open()
        answer = self._expect(1, answer_seconds, answer_seconds)
        self._hand_out()  # it may have come before
        return answer

    def close(self, why: str = "the connection was closed") -> None:
        """End the connection; who still waits gets ConnectionLostError with ``why``."""
        self._end(why)

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._why_closed is not None:  # given up while it was being made
            self._transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._parser.feed(data)
        self._hand_out()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "it closed the connection")

    # -- connecting and answers ---------------------------------------------------------------------------------------

    async def _connect(self, connect_seconds: float) -> None:
        loop, endpoint = asyncio.get_running_loop(), self.endpoint
        tls = tls_context(endpoint.tls) if endpoint.tls else None
        try:
            async with asyncio.timeout(connect_seconds):
                if endpoint.path is not None:
                    await loop.create_unix_connection(lambda: self, endpoint.path)
                else:
                    await loop.create_connection(lambda: self, endpoint.host, endpoint.port, ssl=tls)
        except (OSError, TimeoutError, UnicodeError) as error:  # UnicodeError: a host that cannot be one
            reason = str(error) or f"no connection within {connect_seconds:g} s"
            raise ConnectionLostError(f"Redis at {endpoint} cannot be reached: {reason}") from error

    def _require_open(self) -> asyncio.Transport:
        if self._transport is None or self._why_closed is not None:
            raise self._lost()
        return self._transport

    def _lost(self) -> ConnectionLostError:
        return ConnectionLostError(f"Redis at {self.endpoint} cannot be reached: {self._why_closed}")

    def _expect(self, count: int, answer_seconds: float, wait_seconds: float) -> asyncio.Future[list[Reply]]:
        loop = asyncio.get_running_loop()
        now = loop.time() + wait_seconds
        waiting = _Waiting(loop.create_future(), count, now + LATE_SECONDS, now + answer_seconds)
        self._waiting.append(waiting)
        self._look_again_at(min(waiting.late_at, waiting.deadline))
        return waiting.answer

    def _hand_out(self) -> None:
        try:
            self._hand_out_what_is_there()
        except hiredis.ProtocolError as error:
            self._end(f"its answer cannot be read: {error}")

    def _hand_out_what_is_there(self) -> None:
        parser, queue = self._parser, self._waiting
        while queue:
            waiting = queue[0]
            replies = waiting.replies
            while len(replies) < waiting.count:
                reply = parser.gets()
                if reply is False:  # the rest has not arrived; RESP2 has no booleans
                    return
                replies.append(reply)
            queue.popleft()
            if not waiting.answer.done():
                waiting.answer.set_result(replies)

    def _look_for_late_ones(self) -> None:
        """One timer for all that waits: with many short commands, one each would cost more than the commands."""
        self._watch = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if min(waiting.deadline for waiting in self._waiting) <= now:
            self._end("it did not answer in time")
            return
        if self._on_late is not None and self.is_late:
            self._on_late()
        self._look_again_at(min(min(one.deadline, _next_look(one, now)) for one in self._waiting))

    def _look_again_at(self, when: float) -> None:
        if self._watch is not None:
            if self._watch.when() <= when:
                return
            self._watch.cancel()
        self._watch = asyncio.get_running_loop().call_at(when, self._look_for_late_ones)

    def _end(self, why: str) -> None:
        if self._why_closed is not None:
            return
        self._why_closed = why
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.answer.done():
                one.answer.set_exception(self._lost())
                # Nobody may be waiting any more; asyncio would report the exception as forgotten.
                one.answer.exception()


def _next_look(waiting: _Waiting, now: float) -> float:
    return waiting.late_at if waiting.late_at > now else now + LATE_SECONDS


def _greeting(endpoint: Endpoint) -> list[Command]:
    commands: list[Command] = []
    if endpoint.password is not None:
        who = (endpoint.username,) if endpoint.username else ()
        commands.append(("AUTH", *who, endpoint.password))
    if endpoint.database:
        commands.append(("SELECT", endpoint.database))
    return commands
