"""Open WebSocket connections and who gets what: named market streams, and the user stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from infrastructure.paper_exchange.connection_rules import ConnectionRules, SlidingCount
from infrastructure.paper_exchange.stream_names import Category, market_stream
from infrastructure.paper_exchange.stream_protocol import wire_of
from shared.clock import Clock

log = structlog.get_logger(__name__)

#: A client that is this many messages behind is disconnected, as on Binance.
_BACKLOG = 20_000
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


@dataclass(frozen=True, slots=True)
class Opening:
    """What the address of a new connection asks for.

    Attributes:
        category: Kind of address.
        streams: Market streams that it names.
        listen_key: Key of the user stream that it opens, or None.
        is_combined: Whether messages come wrapped with the name of their stream.
    """

    category: Category
    streams: tuple[str, ...] = ()
    listen_key: str | None = None
    is_combined: bool = False


class Connection:
    """One WebSocket with its subscriptions and its queue of unsent messages."""

    def __init__(self, socket: WebSocket, opening: Opening, rules: ConnectionRules, clock: Clock) -> None:
        self._socket = socket
        self._unsent: asyncio.Queue[bytes | None] = asyncio.Queue(_BACKLOG)
        self._rules = rules
        self._clock = clock
        self._received = SlidingCount(rules.messages, rules.messages_seconds)
        self._opened_at = self._heard_at = self._pinged_at = clock.monotonic()
        self._wire = wire_of(socket)
        if self._wire is not None:
            self._wire.on_pong = self._note_pong
        self.category = opening.category
        self.streams = set(opening.streams)
        self.listen_key = opening.listen_key
        self.is_combined = opening.is_combined

    @property
    def client(self) -> tuple[str, int]:
        """Host and port of the other side."""
        address = self._socket.client
        return (address.host, address.port) if address else ("", 0)

    def hears(self, stream: str) -> bool:
        """Tell whether the client asked for ``stream`` on an address that carries it."""
        if stream not in self.streams:
            return False
        meaning = market_stream(stream)
        return meaning is None or self.category.carries(meaning.category)

    def hears_user(self, listen_key: str) -> bool:
        """Tell whether this is the user stream of ``listen_key``."""
        return self.listen_key == listen_key and self.category.carries(Category.PRIVATE)

    # -- sending ---------------------------------------------------------------------------------------------------

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

    # -- life ------------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Ping when it is time; close a connection that is too old, or whose client gives no pong."""
        now = self._clock.monotonic()
        if now - self._opened_at >= self._rules.lifetime_seconds:
            log.info("stream_closed_by_age", seconds=self._rules.lifetime_seconds)
            self.close()
        elif now - self._heard_at >= self._rules.pong_seconds:
            log.info("stream_closed_without_pong", seconds=self._rules.pong_seconds)
            self.close()
        elif now - self._pinged_at >= self._rules.ping_seconds and self._wire is not None:
            self._pinged_at = now
            self._wire.ping()

    def _note_pong(self) -> None:
        self._heard_at = self._clock.monotonic()

    # -- receiving -------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Answer requests until the client goes, or sends too many of them."""
        while True:
            text = await self._socket.receive_text()
            if not self._received.admits(self._clock.monotonic()):
                log.warning("stream_client_too_loud", limit=self._rules.messages)
                self.close()
                await asyncio.Event().wait()  # what it still says is not heard; writing ends the connection
            self.send(orjson.dumps(self._answer(text)))

    def _answer(self, text: str) -> dict[str, Any]:
        try:
            request = orjson.loads(text)
            method, number = request["method"], request.get("id")
            names = request.get("params") or []
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return _error("it is no JSON request", None)
        if method not in _METHODS:
            return _error(f"unknown variant {method}, expected one of {', '.join(_METHODS)}", number)
        if not isinstance(names, list):
            return _error("params must be a list", number)
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(method, names, number)
        asked = {str(name) for name in names}
        if method == "SUBSCRIBE" and len(self.streams | asked) > self._rules.streams:
            return _error(f"one connection carries at most {self._rules.streams} streams", number)
        if method == "SUBSCRIBE":
            self.streams |= asked
        elif method == "UNSUBSCRIBE":
            self.streams -= asked
        return {"result": sorted(self.streams) if method == "LIST_SUBSCRIPTIONS" else None, "id": number}

    def _property(self, method: str, names: list[Any], number: object) -> dict[str, Any]:
        if not names or names[0] != "combined" or (method == "SET_PROPERTY" and not isinstance(names[-1], bool)):
            return _error("the only property is combined, true or false", number)
        if method == "GET_PROPERTY":
            return {"result": self.is_combined, "id": number}
        self.is_combined = names[-1]
        return {"result": None, "id": number}


def _error(text: str, number: object) -> dict[str, Any]:
    return {"error": {"code": 2, "msg": f"Invalid request: {text}"}, "id": number}


class StreamHub:
    """Every open connection.

    Args:
        clock: Wall time; ages and pings of connections go by it.
        rules: Limits of each connection.
    """

    def __init__(self, clock: Clock, rules: ConnectionRules) -> None:
        self._clock = clock
        self._rules = rules
        self._connections: set[Connection] = set()
        #: Turns a market message into what is really sent: the same, another, or nothing.
        self.gate: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda _stream, message: message
        self.is_legacy_silent = False
        self._connects: dict[str, SlidingCount] = {}

    async def serve(self, socket: WebSocket, opening: Opening) -> None:
        """Accept ``socket`` and stay with it until either side closes."""
        if not self._admits(socket):
            await socket.send_denial_response(PlainTextResponse("Too many connection attempts", 429))
            return
        await socket.accept()
        connection = Connection(socket, opening, self._rules, self._clock)
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

    def _admits(self, socket: WebSocket) -> bool:
        host = socket.client.host if socket.client else ""
        count = self._connects.setdefault(host, SlidingCount(self._rules.connects, self._rules.connects_seconds))
        return count.admits(self._clock.monotonic())

    def keep(self) -> None:
        """Ping, and close what is too old or silent."""
        for connection in tuple(self._connections):
            connection.keep()

    def wanted(self) -> set[str]:
        """Return the names of the market streams that someone reads."""
        return {name for connection in self._connections for name in connection.streams if connection.hears(name)}

    def publish(self, stream: str, message: dict[str, Any]) -> None:
        """Send ``message`` to everyone who reads ``stream``."""
        readers = [connection for connection in self._heard() if connection.hears(stream)]
        passed = self.gate(stream, message) if readers else None
        if passed is not None:
            self._send(stream, passed, readers)

    def publish_user(self, listen_key: str, message: dict[str, Any]) -> None:
        """Send ``message`` to the user streams that were opened with ``listen_key``."""
        self._send(listen_key, message, [each for each in self._heard() if each.hears_user(listen_key)])

    def _heard(self) -> list[Connection]:
        """Return the connections that are told anything."""
        return [each for each in self._connections if not (each.category is Category.LEGACY and self.is_legacy_silent)]

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
    def _send(stream: str, message: dict[str, Any], connections: list[Connection]) -> None:
        if not connections:
            return
        encoded = orjson.dumps(message)
        wrapped = orjson.dumps({"stream": stream, "data": orjson.Fragment(encoded)})
        for connection in connections:
            connection.send(wrapped if connection.is_combined else encoded)
