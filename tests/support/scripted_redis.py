"""A server that speaks Redis's protocol and says what a test tells it to: old, stale, slow, broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import hiredis

from tests.support.eventually import eventually

#: Gets a command, returns the raw answer; None is silence.
Script = Callable[[list[bytes]], bytes | None]


class ScriptedRedis:
    """Answers every command with what ``script`` returns.

    Attributes:
        script: May be replaced at any time.
        commands: What was received.
        connections: How many are open.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.commands: list[list[bytes]] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._muted: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> ScriptedRedis:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.disconnect()
        await self._server.wait_closed()
        await eventually(lambda: self.connections == 0, what="closed connections")

    def disconnect(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.close()

    def mute(self) -> None:
        """Answer nothing more over the connections that are open now."""
        self._muted |= self._writers

    def say(self, data: bytes) -> None:
        """Send ``data`` over every connection, unasked."""
        for writer in self._writers:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        self.connections += 1
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.commands.append(command)
                    answer = self.script(command)
                    if answer is not None and writer not in self._muted:
                        writer.write(answer)
        except ConnectionError:
            pass
        finally:
            self.connections -= 1
            self._writers.discard(writer)
            writer.close()


def bulk(text: str) -> bytes:
    """Return ``text`` as a bulk string of the protocol."""
    return b"$%d\r\n%b\r\n" % (len(text.encode()), text.encode())


def array(*items: bytes) -> bytes:
    """Return encoded ``items`` as an array of the protocol."""
    return b"*%d\r\n" % len(items) + b"".join(items)
