"""Open WebSocket connections and who gets what: named market streams, and the user stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

log = structlog.get_logger(__name__)

#: A client that is this many messages behind is disconnected, as on Binance.
_BACKLOG = 20_000


class Connection:
    """One WebSocket with its subscriptions and its queue of unsent messages."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._unsent: asyncio.Queue[bytes | None] = asyncio.Queue(_BACKLOG)
        self.streams: set[str] = set()
        self.listen_key: str | None = None
        self.is_legacy = False

    @property
    def client(self) -> tuple[str, int]:
        """Host and port of the other side."""
        address = self._socket.client
        return (address.host, address.port) if address else ("", 0)

    def send(self, message: bytes) -> None:
        """Queue ``message``; a client that does not read is cut off."""
        try:
            self._unsent.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("stream_client_too_slow", streams=sorted(self.streams), backlog=_BACKLOG)
            self.close()

    def close(self) -> None:
        """End the connection after what is already queued, or at once when the queue is full."""
        while True:
            try:
                self._unsent.put_nowait(None)
                return
            except asyncio.QueueFull:
                self._unsent.get_nowait()

    async def write(self) -> None:
        """Send what is queued until the connection is closed."""
        while (message := await self._unsent.get()) is not None:
            await self._socket.send_text(message.decode())
        if self._socket.application_state is WebSocketState.CONNECTED:
            await self._socket.close(1000)

    async def read(self) -> None:
        """Handle SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS until the client goes."""
        while True:
            self._answer(await self._socket.receive_text())

    def _answer(self, text: str) -> None:
        try:
            request = orjson.loads(text)
            method, names, number = request["method"], request.get("params") or [], request.get("id")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            self.send(orjson.dumps({"error": {"code": 2, "msg": "Invalid request: it is no JSON request"}}))
            return
        if method == "SUBSCRIBE":
            self.streams.update(str(name) for name in names)
        elif method == "UNSUBSCRIBE":
            self.streams.difference_update(str(name) for name in names)
        elif method != "LIST_SUBSCRIPTIONS":
            self.send(orjson.dumps({"error": {"code": 2, "msg": f"Invalid request: unknown method {method}"}}))
            return
        result = sorted(self.streams) if method == "LIST_SUBSCRIPTIONS" else None
        self.send(orjson.dumps({"result": result, "id": number}))


class StreamHub:
    """Every open connection."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        #: Turns a market message into what is really sent: the same, another, or nothing.
        self.gate: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda _stream, message: message
        self.is_legacy_silent = False

    async def serve(
        self, socket: WebSocket, *, streams: Iterable[str] = (), listen_key: str | None = None, is_legacy: bool = False
    ) -> None:
        """Accept ``socket`` and stay with it until either side closes.

        Args:
            socket: The WebSocket, not yet accepted.
            streams: Market streams that its address names.
            listen_key: Key of the user stream it opens, or None.
            is_legacy: Whether it came by an address without a category, which Binance keeps open and silent.
        """
        await socket.accept()
        connection = Connection(socket)
        connection.is_legacy = is_legacy
        connection.streams.update(streams)
        connection.listen_key = listen_key
        self._connections.add(connection)
        tasks = {asyncio.create_task(connection.write()), asyncio.create_task(connection.read())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._connections.discard(connection)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, (WebSocketDisconnect, RuntimeError)):
                    log.warning("stream_connection_failed", error=str(result))

    def wanted(self) -> set[str]:
        """Return the names of the market streams that someone reads."""
        return {name for connection in self._connections for name in connection.streams}

    def publish(self, stream: str, message: dict[str, Any]) -> None:
        """Send ``message`` to everyone who reads ``stream``."""
        readers = [connection for connection in self._heard() if stream in connection.streams]
        passed = self.gate(stream, message) if readers else None
        if passed is not None:
            self._send(readers, passed)

    def publish_user(self, listen_key: str, message: dict[str, Any]) -> None:
        """Send ``message`` to the user streams that were opened with ``listen_key``."""
        self._send([connection for connection in self._heard() if connection.listen_key == listen_key], message)

    def _heard(self) -> list[Connection]:
        """Return the connections that are told anything."""
        return [each for each in self._connections if not (each.is_legacy and self.is_legacy_silent)]

    def clients(self, *, user: bool, market: bool) -> list[tuple[str, int]]:
        """Return the addresses behind user streams, market streams or both."""
        return [connection.client for connection in self._chosen(user=user, market=market)]

    def _chosen(self, *, user: bool, market: bool) -> list[Connection]:
        return [each for each in self._connections if (user if each.listen_key is not None else market)]

    def close(self, *, user: bool, market: bool) -> int:
        """Close user streams, market streams or both; return how many."""
        chosen = self._chosen(user=user, market=market)
        for connection in chosen:
            connection.close()
        return len(chosen)

    @staticmethod
    def _send(connections: list[Connection], message: dict[str, Any]) -> None:
        if connections:
            encoded = orjson.dumps(message)
            for connection in connections:
                connection.send(encoded)
