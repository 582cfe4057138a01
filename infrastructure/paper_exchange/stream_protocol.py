"""uvicorn's WebSocket protocol with the wire in reach: pings of our own, and when the client last gave a pong."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

_SCOPE_KEY = "paper_exchange.wire"


class StreamProtocol(WebSocketsSansIOProtocol):
    """Hands itself to the application in the connection's scope.

    Attributes:
        on_pong: Called at each pong of the client, asked for or not.
    """

    on_pong: Callable[[], None] | None = None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            # The application's task starts later, so it sees this.
            cast("dict[str, object]", self.scope["extensions"])[_SCOPE_KEY] = self

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        if self.on_pong is not None:
            self.on_pong()

    def ping(self) -> None:
        """Send a ping frame."""
        if not (self.close_sent or self.transport.is_closing()):
            self.conn.send_ping(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))


def wire_of(socket: WebSocket) -> StreamProtocol | None:
    """Return the protocol under ``socket``; None under a server that is not ours."""
    found = socket.scope.get("extensions", {}).get(_SCOPE_KEY)
    return found if isinstance(found, StreamProtocol) else None
