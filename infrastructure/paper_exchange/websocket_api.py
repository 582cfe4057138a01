"""The WebSocket paths: market streams by subscription, the user stream by listen key."""

from __future__ import annotations

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.stream_hub import Opening
from infrastructure.paper_exchange.stream_names import Category


def websocket_routes(exchange: LiveExchange) -> list[WebSocketRoute]:
    """Return the routes ``/ws`` and ``/stream`` under each kind of address, and without one.

    What follows ``/ws/`` names streams when it holds an ``@``, is the connection number of a client when it is one,
    and else a listen key. ``/stream?streams=a/b`` names streams, and wraps every message with its stream's name.
    """

    async def serve(socket: WebSocket) -> None:
        await exchange.hub.serve(socket, opening_of(socket))

    return [
        WebSocketRoute(f"{prefix}/{form}{rest}", serve)
        for prefix in ("", *(f"/{each}" for each in Category if each is not Category.LEGACY))
        for form in ("ws", "stream")
        for rest in ("", "/{rest:path}")
    ]


def opening_of(socket: WebSocket) -> Opening:
    """Read what the address of ``socket`` asks for."""
    head = socket.url.path.split("/")[1]
    category = Category(head) if head in set(Category) else Category.LEGACY
    is_combined = "stream" in socket.url.path.split("/")[1:3]
    named = f"{socket.path_params.get('rest', '')}/{socket.query_params.get('streams', '')}".split("/")
    keys = [socket.query_params.get("listenKey", ""), *(part for part in named if "@" not in part)]
    carries_user = category in (Category.PRIVATE, Category.LEGACY)
    return Opening(
        category,
        streams=tuple(part for part in named if "@" in part),
        listen_key=next((key for key in keys if key and not key.isdigit()), None) if carries_user else None,
        is_combined=is_combined,
    )
