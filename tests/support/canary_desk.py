"""A service whose every part fails with its secrets in hand: ``python -m tests.support.canary_desk``.

It is built as the real ones are: settings from the environment, logs, bus, RPC, health, HTTP, spans.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import warnings
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, HTTPException
from pydantic import AliasChoices, Field, SecretStr

from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.errors import ConnectionLostError, PermanentError, RpcError
from shared.events.envelope import Event
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.routes import create_service_api
from shared.health.server import run_service
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.commands import GetPositionsRequest, GetPositionStatusRequest
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.server import RpcServer
from shared.service import Service
from shared.settings import PostgresUrl, ServiceSettings
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import Spans, create_spans

SERVICE = "exec-risk-service"
INSTANCE = "one"

log = structlog.get_logger("canary")


class DeskSettings(ServiceSettings):
    """One setting of each kind that can hold a secret."""

    port: int = Field(ge=1, le=65535, validation_alias=AliasChoices("qt_port", "port"))
    postgres_url: PostgresUrl
    control_token: SecretStr
    collector_url: str
    collector_headers: SecretStr


class Tellings:
    """Everything that a careless part could say."""

    def __init__(self, settings: DeskSettings) -> None:
        self.secrets = settings.secret_values()

    def __str__(self) -> str:
        return "refused: " + " / ".join(self.secrets)


class Desk:
    """Handlers that fail, each in its own way."""

    def __init__(self, tellings: Tellings, spans: Spans) -> None:
        self._tellings = tellings
        self._spans = spans

    async def on_candle(self, event: Event[Any]) -> None:
        """End as a dead letter, after a span that failed."""
        with self._spans.handle(event):
            raise PermanentError(f"{self._tellings}\r\n\x1b[31m")

    async def get_positions(self, _request: GetPositionsRequest) -> Any:
        """Fail on purpose."""
        raise RpcError("NO_ACCOUNT", str(self._tellings))

    async def get_position_status(self, _request: GetPositionStatusRequest) -> Any:
        """Fail by mistake."""
        raise RuntimeError(str(self._tellings))

    async def probe(self) -> float:
        """Fail as a driver that repeats its address does."""
        raise ConnectionLostError(str(self._tellings))

    def routes(self) -> APIRouter:
        """Return routes whose errors are told by the framework and by nobody."""
        router = APIRouter()

        @router.get("/refuse")
        async def refuse() -> None:
            raise HTTPException(422, {"reason": str(self._tellings), "all": list(self._tellings.secrets)})

        @router.get("/break")
        async def break_down() -> None:
            raise RuntimeError(str(self._tellings))

        @router.get("/say")
        async def say() -> str:
            self.say()
            await asyncio.sleep(0)
            return "said"

        return router

    def say(self) -> None:
        """Write secrets in every way that a process has."""
        tellings = self._tellings
        log.info("said", told=tellings, nested={"headers": list(tellings.secrets)}, environment=dict(os.environ))
        log.info(str(tellings))
        try:
            raise ValueError(str(tellings)) from KeyError(tellings.secrets[0])
        except ValueError:
            log.exception("failed")
        logging.getLogger("ccxt.base.exchange").warning("headers %s", {"X-MBX-APIKEY": tellings.secrets[0]})
        warnings.warn(str(tellings), stacklevel=1)
        thread = threading.Thread(target=_fail, args=(str(tellings),))
        thread.start()
        thread.join()
        asyncio.get_running_loop().call_soon(_fail, str(tellings))


def _fail(text: str) -> None:
    raise RuntimeError(text)


def create_app(settings: DeskSettings) -> FastAPI:
    """Return the HTTP application of the service."""
    clock, ids = SystemClock(), RandomIds()
    metrics = Metrics(SERVICE, clock)
    spans = create_spans(
        SERVICE,
        instance=INSTANCE,
        clock=clock,
        endpoint=settings.collector_url,
        headers=settings.collector_headers.get_secret_value(),
    )
    desk = Desk(Tellings(settings), spans)
    redis = RedisConnection(settings.redis_url, clock=clock)
    bus = RedisStreamsBus(redis, service=SERVICE, instance=INSTANCE, clock=clock, ids=ids, market_clock=clock)
    bus.subscribe("candle.closed", desk.on_candle)
    rpc = RpcServer(RedisRpcTransport(redis), service=SERVICE, instance=INSTANCE, clock=clock)
    rpc.register("get_positions", desk.get_positions)
    rpc.register("get_position_status", desk.get_position_status)
    health = HealthMonitor({"exchange": DependencyCheck(desk.probe, is_critical=False)}, clock=clock)
    service = Service(SERVICE, [spans, redis, rpc, bus])
    return create_service_api("Canary", service, health, metrics=metrics, ids=ids, routers=[desk.routes()])


if __name__ == "__main__":
    sys.exit(run_service(SERVICE, DeskSettings, create_app))
