"""The WebSocket paths: market streams by subscription, the user stream by listen key."""

from __future__ import annotations

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from infrastructure.paper_exchange.live_exchange import LiveExchange


def websocket_routes(exchange: LiveExchange) -> list[WebSocketRoute]:
    """Return the routes of ``/ws``, ``/public/ws``, ``/market/ws`` and ``/private/ws``.

    What follows ``/ws/`` names streams when it holds an ``@``, is the connection number of a client when it is one,
    and on the old ``/ws/<listenKey>`` path opens the user stream.
    """

    async def market(socket: WebSocket, *, is_legacy: bool = False) -> None:
        streams = _streams_in(socket.path_params.get("rest", ""))
        await exchange.hub.serve(socket, streams=streams, is_legacy=is_legacy)

    async def user(socket: WebSocket, *, is_legacy: bool = False) -> None:
        key = socket.query_params.get("listenKey") or socket.path_params.get("rest", "")
        await exchange.hub.serve(socket, listen_key=key, is_legacy=is_legacy)

    async def either(socket: WebSocket) -> None:
        rest = socket.path_params.get("rest", "")
        opens = user if rest and not _streams_in(rest) and not rest.isdigit() else market
        await opens(socket, is_legacy=True)

    return [
        *(
            WebSocketRoute(f"/{kind}/ws{rest}", market)
            for kind in ("public", "market")
            for rest in ("", "/{rest:path}")
        ),
        *(WebSocketRoute(f"/private/ws{rest}", user) for rest in ("", "/{rest:path}")),
        *(WebSocketRoute(f"/ws{rest}", either) for rest in ("", "/{rest:path}")),
    ]


def _streams_in(path: str) -> list[str]:
    return [part for part in path.split("/") if "@" in part]
