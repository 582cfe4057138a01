"""The TCP connections under the server, so that faults can reset them, cut them off in a frame, or stay silent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from infrastructure.paper_exchange.stream_protocol import StreamProtocol

#: Host and port of a client, as the server sees it.
Client = tuple[str, int]

#: SO_LINGER with a wait of 0: closing sends RST instead of FIN.
_RESET = struct.pack("ii", 1, 0)
#: Head of a text frame of 4096 bytes, and the first few of them.
_HALF_A_FRAME = b"\x81\x7e\x10\x00" + b'{"e":"'


class OpenConnections:
    """Every TCP connection by its client's address."""

    def __init__(self) -> None:
        self._transports: dict[Client, asyncio.Transport] = {}
        self.answers_pings = True

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Remember a connection; forget those that have closed."""
        self._transports = {client: each for client, each in self._transports.items() if not each.is_closing()}
        client = transport.get_extra_info("peername")
        if client is not None:
            self._transports[client[0], client[1]] = cast("asyncio.Transport", transport)

    def reset(self, client: Client) -> None:
        """End a connection with RST."""
        transport = self._transports.pop(client, None)
        if transport is not None:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()

    def cut(self, clients: Iterable[Client]) -> int:
        """End WebSockets in the middle of a frame and return how many."""
        cut = [self._transports.pop(client) for client in clients if client in self._transports]
        for transport in cut:
            transport.write(_HALF_A_FRAME)
            transport.close()
        return len(cut)


def http_protocol(connections: OpenConnections) -> type[H11Protocol]:
    """Return the server's HTTP protocol, which reports its connections."""

    class ReportingProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            connections.opened(transport)
            super().connection_made(transport)

    return ReportingProtocol


def websocket_protocol(connections: OpenConnections) -> type[StreamProtocol]:
    """Return the server's WebSocket protocol, which can leave pings without an answer."""

    class PongProtocol(StreamProtocol):
        def handle_ping(self) -> None:
            if connections.answers_pings:
                super().handle_ping()
            else:
                self.conn.data_to_send()  # the pong that was made on its own

    return PongProtocol
