"""HTTP routes of the exec-risk-service; each calls one handler."""

from __future__ import annotations

from fastapi import APIRouter

from services.exec_risk_service.handlers.position_monitor import PositionMonitor
from shared.rpc.commands import GetPositionsRequest, GetPositionsResult


def positions_router(monitor: PositionMonitor) -> APIRouter:
    """Return ``/api/v1/positions``."""
    router = APIRouter(prefix="/api/v1", tags=["positions"])

    @router.get("/positions")
    async def read_positions() -> GetPositionsResult:
        """All open positions by symbol."""
        return await monitor.get_positions(GetPositionsRequest())

    return router
