"""Serves the exchange: REST and streams on one loopback port, the admin interface on another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from infrastructure.paper_exchange.admin_api import admin_app
from infrastructure.paper_exchange.connections import OpenConnections, http_protocol, websocket_protocol
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.rest_api import RestApi
from infrastructure.paper_exchange.websocket_api import websocket_routes
from infrastructure.paper_exchange.websocket_requests import request_route
from shared.errors import ConfigurationError

log = structlog.get_logger(__name__)

_HOST = "127.0.0.1"


def exchange_app(exchange: LiveExchange) -> Starlette:
    """Return the application that clients talk to."""
    rest = Starlette(routes=RestApi(exchange).routes())
    return Starlette(routes=[*websocket_routes(exchange), request_route(rest), Mount("/", rest)])


def bind(port: int, option: str) -> socket.socket:
    """Return a listening socket on the loopback interface; port 0 takes a free one.

    Raises:
        ConfigurationError: The port is taken; the message names ``option``.
    """
    # With the protocol named, asyncio turns Nagle off on accepted connections; without, answers come 40 ms late.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen(256)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigurationError(f"port {port} cannot be used ({error}); give another one with {option}") from None
    return listener


@contextlib.asynccontextmanager
async def serving(
    exchange: LiveExchange, listener: socket.socket, admin_listener: socket.socket | None = None
) -> AsyncIterator[None]:
    """Run market and servers inside the block, and end them cleanly after it."""
    servers = [_Server(_config(exchange_app(exchange), exchange.connections))]
    listeners = [listener]
    if admin_listener is not None:
        servers.append(_Server(_config(admin_app(exchange), OpenConnections())))
        listeners.append(admin_listener)
    market = asyncio.create_task(exchange.run())
    tasks = [asyncio.create_task(server.serve(sockets=[each])) for server, each in zip(servers, listeners, strict=True)]
    try:
        await _until_started(servers, [market, *tasks])
        yield
    finally:
        await exchange.stop()
        for server in servers:
            server.should_exit = True
        market.cancel()
        await asyncio.gather(market, *tasks, return_exceptions=True)
        for each in listeners:
            each.close()


async def _until_started(servers: list[_Server], tasks: list[asyncio.Task[None]]) -> None:
    while not all(server.started for server in servers):
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.005)


def _config(app: Starlette, connections: OpenConnections) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http=http_protocol(connections),
        ws=websocket_protocol(connections),
        ws_ping_interval=None,  # the hub pings, at Binance's pace
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )


class _Server(uvicorn.Server):
    """Leaves the signals to the process: two servers share it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
