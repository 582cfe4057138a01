"""Requests over a WebSocket (``/ws-fapi/v1``): each is answered by the REST endpoint that does the same."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
import structlog
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket, WebSocketDisconnect

log = structlog.get_logger(__name__)

#: Method of a request: HTTP method and path of the endpoint that answers it.
METHODS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "depth": ("GET", "/fapi/v1/depth"),
        "ticker.price": ("GET", "/fapi/v2/ticker/price"),
        "ticker.book": ("GET", "/fapi/v1/ticker/bookTicker"),
        "order.place": ("POST", "/fapi/v1/order"),
        "order.modify": ("PUT", "/fapi/v1/order"),
        "order.cancel": ("DELETE", "/fapi/v1/order"),
        "order.status": ("GET", "/fapi/v1/order"),
        "algoOrder.place": ("POST", "/fapi/v1/algoOrder"),
        "algoOrder.cancel": ("DELETE", "/fapi/v1/algoOrder"),
        "account.balance": ("GET", "/fapi/v2/balance"),
        "v2/account.balance": ("GET", "/fapi/v3/balance"),
        "account.status": ("GET", "/fapi/v2/account"),
        "v2/account.status": ("GET", "/fapi/v3/account"),
        "account.position": ("GET", "/fapi/v2/positionRisk"),
        "v2/account.position": ("GET", "/fapi/v3/positionRisk"),
        "userDataStream.start": ("POST", "/fapi/v1/listenKey"),
        "userDataStream.ping": ("PUT", "/fapi/v1/listenKey"),
        "userDataStream.stop": ("DELETE", "/fapi/v1/listenKey"),
    }
)
#: Signed, and nothing to the endpoint.
_NO_PARAMETER = frozenset({"signature"})


def request_route(rest: ASGIApp) -> WebSocketRoute:
    """Return the route; ``rest`` is the application of the REST endpoints, with all its checks and faults."""

    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        answers: set[asyncio.Task[None]] = set()
        try:
            while True:
                text = await socket.receive_text()
                answer = asyncio.create_task(_answer(rest, socket, text))
                answers.add(answer)
                answer.add_done_callback(answers.discard)
        except WebSocketDisconnect:
            pass
        finally:
            for answer in answers:
                answer.cancel()

    return WebSocketRoute("/ws-fapi/v1", serve)


async def _answer(rest: ASGIApp, socket: WebSocket, text: str) -> None:
    """Answer one request; one that waits, as a held order does, keeps no other waiting."""
    try:
        request = orjson.loads(text)
        number, method, parameters = request["id"], str(request["method"]), dict(request.get("params") or {})
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        await _send(socket, {"id": None, "status": 400, "error": {"code": -1135, "msg": "Invalid JSON Request"}})
        return
    if method not in METHODS:
        await _send(
            socket, {"id": number, "status": 400, "error": {"code": -1020, "msg": "This operation is not supported."}}
        )
        return
    status, body = await _ask(rest, socket, *METHODS[method], parameters)
    try:
        result = orjson.loads(body)
    except orjson.JSONDecodeError:
        # What a client of REST sees as a broken answer is a broken connection here.
        await socket.close(1011)
        return
    await _send(socket, {"id": number, "status": status, "result" if status == 200 else "error": result})


async def _ask(
    rest: ASGIApp, socket: WebSocket, method: str, path: str, parameters: Mapping[str, Any]
) -> tuple[int, bytes]:
    """Return status and body of a REST request with the same parameters, sorted as they were signed."""
    pairs = [f"{name}={_plain(parameters[name])}" for name in sorted(parameters) if name not in _NO_PARAMETER]
    pairs += [f"{name}={parameters[name]}" for name in sorted(_NO_PARAMETER & parameters.keys())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": "&".join(pairs).encode(),
        "headers": [(b"x-mbx-apikey", str(parameters.get("apiKey", "")).encode())],
        "client": socket.scope.get("client"),
        "server": socket.scope.get("server"),
    }
    status, parts = 500, list[bytes]()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await rest(scope, receive, send)
    return status, b"".join(parts)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _send(socket: WebSocket, message: dict[str, Any]) -> None:
    try:
        await socket.send_text(orjson.dumps(message).decode())
    except (RuntimeError, WebSocketDisconnect):
        log.info("request_answer_unread", id=message["id"])
