"""How requests leave once their step is stored: one function, and the way that takes them one after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias, assert_never

from services.exec_risk_service.domain.step import CancelOrder, EndExposure, Reconcile, Request, SubmitOrder
from services.exec_risk_service.handlers.emergency_stop import EmergencyStop
from services.exec_risk_service.handlers.order_sender import OrderSender
from services.exec_risk_service.handlers.reconciler import Reconciler

#: Does what one request asks for.
CarryOut: TypeAlias = Callable[[Request], Awaitable[None]]


def carrier(sender: OrderSender, reconciler: Reconciler, stop: EmergencyStop) -> CarryOut:
    """Return the function that gives each request to who does the work."""

    async def carry_out(request: Request) -> None:
        match request:
            case SubmitOrder():
                await sender.submit(request.client_order_id)
            case CancelOrder():
                await sender.cancel(request.client_order_id)
            case Reconcile():
                await reconciler.sweep_symbol(request.symbol)
            case EndExposure():
                await stop.obey(request.stop_id)
            case _:
                assert_never(request)

    return carry_out


class InlineLanes:
    """Carries out each request before ``dispatch`` returns: replay and tests see one fixed order of things."""

    def __init__(self) -> None:
        self._carry_out: CarryOut | None = None

    def open(self, carry_out: CarryOut) -> None:
        """Name who does the work; called once by the composition root."""
        self._carry_out = carry_out

    async def dispatch(self, requests: tuple[Request, ...]) -> None:
        if self._carry_out is None:
            raise AssertionError("lanes are opened before the ledger is used")
        for request in requests:
            await self._carry_out(request)
