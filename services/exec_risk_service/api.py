"""HTTP routes of the exec-risk-service; each calls one handler. Control routes admit who shows the token."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from services.exec_risk_service.handlers.emergency_stop import EmergencyStop
from services.exec_risk_service.handlers.position_monitor import PositionMonitor
from services.exec_risk_service.handlers.risk_validator import RiskValidator
from services.exec_risk_service.handlers.stop_progress import StopProgress
from services.exec_risk_service.handlers.trading_desk import TradingDesk
from shared.access import Denial, TokenGate
from shared.errors import InvalidInputError, TransientError
from shared.rpc.commands import GetPositionsRequest, GetPositionsResult

_STATUS = {Denial.CLOSED: 403, Denial.NO_TOKEN: 401, Denial.WRONG_TOKEN: 401, Denial.THROTTLED: 429}
_CONFLICT = 409
_NOT_AVAILABLE = 503
#: What a person writes into the record: one line, and no longer than anybody reads.
Reason = Annotated[str, Field(min_length=3, max_length=500, pattern=r"^[^\r\n]*\S[^\r\n]*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}$")]


class _Wish(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StopWish(_Wish):
    """Stop everything now."""

    reason: Reason
    requested_by: Name = "operator"


class ResumeWish(_Wish):
    """Let trading go on; the name is that of the person who answers for it."""

    reason: Reason
    by: Name


class StateWish(_Wish):
    """Keep entries back; leaving that again is a resume."""

    state: Literal["REDUCING", "HALTED"]
    reason: Reason
    by: Name


class StopAnswer(BaseModel):
    """How far the emergency stop is."""

    status: Literal["none", "in_progress", "stopped"]
    stop_id: str
    reason: str
    requested_by: str
    orders_cancelled: int
    positions_closed: int
    orders_left: int
    positions_left: int
    message: str


class RestrictionAnswer(BaseModel):
    """One cause that keeps entries back."""

    cause: TradingCause
    reason: str
    changed_by: str
    since: datetime
    ends: str


class TradingStateAnswer(BaseModel):
    """What may be sent, and why."""

    state: TradingState
    reason: str
    changed_by: str
    since: datetime | None
    restrictions: tuple[RestrictionAnswer, ...]
    losses_in_a_row: int
    emergency_stop: StopAnswer


def positions_router(monitor: PositionMonitor) -> APIRouter:
    """Return ``/api/v1/positions``."""
    router = APIRouter(prefix="/api/v1", tags=["positions"])

    @router.get("/positions")
    async def read_positions() -> GetPositionsResult:
        """All open positions by symbol."""
        return await monitor.get_positions(GetPositionsRequest())

    return router


def admission(gate: TokenGate) -> Callable[[Request], Awaitable[None]]:
    """Return what lets only those pass who show the token."""

    async def admitted(request: Request) -> None:
        caller = request.client.host if request.client else "unknown"
        denied = gate.check(request.headers.get("Authorization"), caller=caller)
        if denied is not None:
            headers = {"WWW-Authenticate": "Bearer"} if _STATUS[denied.kind] == 401 else {}
            if denied.retry_after_seconds:
                headers["Retry-After"] = str(math.ceil(denied.retry_after_seconds))
            raise HTTPException(_STATUS[denied.kind], denied.message, headers=headers)

    return admitted


def risk_router(validator: RiskValidator) -> APIRouter:
    """Return ``/api/v1/risk``."""
    router = APIRouter(prefix="/api/v1", tags=["risk"])

    @router.get("/risk")
    async def read_risk() -> dict[str, Any]:
        """Exposures, value at risk, drawdown, and the limits in force with their origin."""
        return validator.report()

    return router


def trading_router(stop: EmergencyStop, desk: TradingDesk, gate: TokenGate) -> APIRouter:
    """Return ``/api/v1/trading-state``, ``/api/v1/emergency-stop`` and ``/api/v1/resume``."""
    router = APIRouter(prefix="/api/v1", tags=["trading"])
    bearer = Depends(HTTPBearer(auto_error=False, description="The token of QT_API_TOKEN."))

    guarded = [Depends(admission(gate)), bearer]

    @router.get("/trading-state")
    async def read_state() -> TradingStateAnswer:
        """What may be sent now, and why."""
        return _state(desk, stop)

    @router.post("/trading-state", dependencies=guarded)
    async def keep_entries_back(wish: StateWish) -> TradingStateAnswer:
        """Let positions only be reduced, or halt, without closing anything."""
        try:
            await desk.restrict(TradingState(wish.state), wish.reason, wish.by)
        except TransientError as error:
            raise HTTPException(_NOT_AVAILABLE, str(error)) from error
        return _state(desk, stop)

    @router.post("/emergency-stop", status_code=202, dependencies=guarded)
    async def stop_now(wish: StopWish) -> StopAnswer:
        """Cancel every order, close every position, and open nothing until a person resumes."""
        return _stop(await stop.request(wish.reason, wish.requested_by))

    @router.post("/resume", dependencies=guarded)
    async def resume(wish: ResumeWish) -> TradingStateAnswer:
        """Let trading go on."""
        try:
            await stop.resume(wish.reason, wish.by)
        except InvalidInputError as error:
            raise HTTPException(_CONFLICT, str(error)) from error
        except TransientError as error:
            raise HTTPException(_NOT_AVAILABLE, str(error)) from error
        return _state(desk, stop)

    return router


def _stop(progress: StopProgress) -> StopAnswer:
    return StopAnswer(
        status=progress.status,
        stop_id=progress.stop_id,
        reason=progress.reason,
        requested_by=progress.requested_by,
        orders_cancelled=progress.orders_cancelled,
        positions_closed=progress.positions_closed,
        orders_left=progress.orders_left,
        positions_left=progress.positions_left,
        message=progress.message,
    )


def _state(desk: TradingDesk, stop: EmergencyStop) -> TradingStateAnswer:
    trading, progress = desk.trading, stop.progress
    latched = progress.status != "none" and trading.stop is None  # the journal does not know it yet
    return TradingStateAnswer(
        state=TradingState.HALTED if latched else trading.state,
        reason=progress.reason if latched else trading.reason,
        changed_by=progress.requested_by if latched else trading.changed_by,
        since=trading.since,
        restrictions=tuple(
            RestrictionAnswer(
                cause=one.cause, reason=one.reason, changed_by=one.changed_by, since=one.since, ends=one.ends.value
            )
            for one in trading.restrictions
        ),
        losses_in_a_row=trading.losses_in_a_row,
        emergency_stop=_stop(progress),
    )
