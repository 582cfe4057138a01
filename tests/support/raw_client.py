"""A client without any library in between: signs requests, reads answers and streams as they come."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import websockets

from shared.clock import SystemClock
from tests.support.exchanges import RunningExchange
from tests.support.markets import BTC

ORDER = {"symbol": BTC, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
KEY = {"X-MBX-APIKEY": "paper"}


class RawClient:
    """A client without retries, on one exchange."""

    def __init__(self, exchange: RunningExchange, http: httpx.AsyncClient) -> None:
        self.exchange = exchange
        self.engine = exchange.live.engine
        self.http = http

    async def ask(self, method: str, path: str, **parameters: object) -> httpx.Response:
        stamped = {**parameters}
        stamped.setdefault("timestamp", round(SystemClock().now().timestamp() * 1000))
        text = urlencode(stamped)
        signature = hmac.new(b"paper", text.encode(), hashlib.sha256).hexdigest()
        address = path if path.startswith("/") else f"/fapi/{path}"
        return await self.http.request(method, f"{address}?{text}&signature={signature}", headers=KEY)

    async def order(self, **changes: object) -> httpx.Response:
        return await self.ask("POST", "v1/order", **{**ORDER, **changes})

    async def limit(self, client_id: str) -> httpx.Response:
        """Place a limit order that rests below the market."""
        price = str(round(float(self.engine.quote(BTC).last) * 0.97))
        return await self.order(type="LIMIT", price=price, timeInForce="GTC", newClientOrderId=client_id)

    async def stop(self, client_id: str, factor: float = 0.9) -> httpx.Response:
        price = str(round(float(self.engine.quote(BTC).last) * factor))
        fields = {**ORDER, "side": "SELL", "type": "STOP_MARKET", "algoType": "CONDITIONAL", "triggerPrice": price}
        return await self.ask("POST", "v1/algoOrder", **fields, clientAlgoId=client_id, reduceOnly="true")

    async def arm(self, kind: str, **fields: object) -> None:
        answer = await self.exchange.admin.post("/admin/faults", json={"kind": kind, **fields})
        assert answer.status_code == 200, answer.text

    async def clear(self) -> None:
        await self.exchange.admin.delete("/admin/faults")

    def filled(self) -> int:
        return len(self.engine.fills(BTC))

    @contextlib.asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[Stream]:
        async with websockets.connect(self.exchange.url.replace("http", "ws") + path, ping_interval=None) as socket:
            yield Stream(socket)

    @contextlib.asynccontextmanager
    async def user_stream(self, path: str = "/private/ws?listenKey=") -> AsyncIterator[Stream]:
        key = (await self.ask("POST", "v1/listenKey")).json()["listenKey"]
        async with self.stream(path + key) as stream:
            yield stream


class Stream:
    """A WebSocket that is read message by message."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    async def next(self, event: str = "") -> dict[str, Any]:
        """Return the next message, of type ``event`` when one is named."""
        while True:
            message: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), 5))
            if event in ("", message.get("e")):
                return message

    async def subscribe(self, *names: str) -> None:
        await self.socket.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
        while "result" not in (await self.next()):
            pass


def seen(answer: httpx.Response) -> tuple[int, int | None]:
    """Return HTTP status and Binance's code."""
    return answer.status_code, answer.json().get("code")


@contextlib.asynccontextmanager
async def raw_client(exchange: RunningExchange) -> AsyncIterator[RawClient]:
    """Give a client of ``exchange``."""
    async with httpx.AsyncClient(base_url=exchange.url) as http:
        yield RawClient(exchange, http)
