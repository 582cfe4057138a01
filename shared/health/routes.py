"""The HTTP side that every service has: health, liveness, readiness, metrics, correlation ids."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from fastapi import APIRouter, FastAPI, Response

from shared.cancellation import end_task
from shared.errors import ConfigurationError
from shared.health.checks import HealthMonitor, software_version
from shared.health.contract import HealthStatus, ServiceHealth
from shared.health.gauges import HealthGauges
from shared.ids import IdSource
from shared.service import Service
from shared.telemetry.correlation import Correlation
from shared.telemetry.masking import mask_text
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

CORRELATION_HEADER = "X-Correlation-ID"
#: What a caller may send as its id; anything else is replaced, so that no header reaches a log unchecked.
_CORRELATION_ID = re.compile(r"\A[A-Za-z0-9._:-]{1,128}\Z")

START_FAILED = 1
WRONG_CONFIGURATION = 4


def health_router(service: Service, health: HealthMonitor, metrics: Metrics) -> APIRouter:
    """Return ``/health``, ``/health/live``, ``/health/ready`` and ``/metrics``."""
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def read_health() -> Response:
        """State of the service and of what it depends on; 503 when it cannot do its work."""
        report = health.report(service)
        return _answer(report, 503 if report.status is HealthStatus.DOWN else 200)

    @router.get("/health/live")
    async def read_liveness() -> dict[str, str]:
        """The process answers; nothing else is asked."""
        return {"status": "alive"}

    @router.get("/health/ready")
    async def read_readiness() -> Response:
        """Start and recovery are finished; 503 before, and once the service stops.

        A dependency that is DOWN changes nothing here. Whoever asks wants to know where requests may go: a server that
        all replicas share would take them all out of rotation at once, and with them positions and the emergency stop,
        which work without it. Whether the service does its work is told by ``/health`` and by its heartbeats.
        """
        return _answer(health.report(service), 200 if service.ready else 503)

    @router.get("/metrics")
    async def read_metrics() -> Response:
        """Figures for Prometheus."""
        body, content_type = metrics.render()
        return Response(body, media_type=content_type)

    return router


def _answer(report: ServiceHealth, status_code: int) -> Response:
    return Response(mask_text(report.model_dump_json()), status_code=status_code, media_type="application/json")


def create_service_api(
    title: str,
    service: Service,
    health: HealthMonitor,
    *,
    metrics: Metrics,
    ids: IdSource,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """Return the HTTP application of a service.

    The service starts in the background, so that health answers while it recovers. Its dependencies are looked after
    from before the first component starts, which may wait for one of them, until before the first one stops, because
    a check would open again what was closed. When the start fails, the application asks its server to stop, and
    ``app.state.exit_code`` says how the process must end.

    Args:
        title: Shown in ``/docs``.
        service: Components to start with the server and to stop with it.
        health: Answers ``/health``; no component of the service.
        metrics: Answers ``/metrics``.
        ids: Makes correlation ids for callers that send none.
        routers: Routes of the service itself.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await health.start()
        start = asyncio.create_task(_start(app, service), name="service-start")
        yield
        await health.stop()
        await end_task(start)
        await service.stop()

    app = FastAPI(title=title, version=software_version(), lifespan=lifespan)
    app.state.exit_code = 0
    app.state.stop_server = lambda: None

    metrics.registry.register(HealthGauges(lambda: health.report(service)))
    app.add_middleware(Correlation, ids=ids)
    app.include_router(health_router(service, health, metrics))
    for router in routers:
        app.include_router(router)
    return app


async def _start(app: FastAPI, service: Service) -> None:
    try:
        await service.start()
    except Exception as error:  # noqa: BLE001 - the service has logged it; the process must end with a code
        app.state.exit_code = WRONG_CONFIGURATION if isinstance(error, ConfigurationError) else START_FAILED
        app.state.stop_server()
