"""A TCP proxy that lets requests through and can keep an answer: the connection dies after the server acted."""

from __future__ import annotations

import asyncio


class ReplyThief:
    """Forwards to one server; an answer that is stolen closes its connection instead of arriving.

    Attributes:
        stealing: Steal every answer for as long as this is set.
        stolen: Answers that did not arrive.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._armed = False
        self.stealing = False
        self.stolen = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def steal_next(self) -> None:
        """Steal one answer."""
        self._armed = True

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, server_writer]
        requests = asyncio.create_task(_copy(reader, server_writer))
        try:
            while answer := await server_reader.read(65536):
                if self._armed or self.stealing:
                    self._armed = False
                    self.stolen += 1
                    break
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            requests.cancel()
            writer.close()
            server_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
