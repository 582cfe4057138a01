"""How requests leave once their step is stored: one function, and the way that takes them one after the other."""

from __future__ import annotations

from typing import assert_never

from services.exec_risk_service.domain.step import CancelOrder, Reconcile, Request, SubmitOrder
from services.exec_risk_service.handlers.order_sender import OrderSender
from services.exec_risk_service.handlers.reconciler import Reconciler


async def carry_out(request: Request, sender: OrderSender, reconciler: Reconciler) -> None:
    """Do what one request asks for."""
    match request:
        case SubmitOrder():
            await sender.submit(request.client_order_id)
        case CancelOrder():
            await sender.cancel(request.client_order_id)
        case Reconcile():
            await reconciler.sweep_symbol(request.symbol)
        case _:
            assert_never(request)


class InlineLanes:
    """Carries out each request before ``dispatch`` returns: replay and tests see one fixed order of things."""

    def __init__(self) -> None:
        self._sender: OrderSender | None = None
        self._reconciler: Reconciler | None = None

    def open(self, sender: OrderSender, reconciler: Reconciler) -> None:
        """Name who does the work; called once by the composition root."""
        self._sender, self._reconciler = sender, reconciler

    async def dispatch(self, requests: tuple[Request, ...]) -> None:
        if self._sender is None or self._reconciler is None:
            raise AssertionError("lanes are opened before the ledger is used")
        for request in requests:
            await carry_out(request, self._sender, self._reconciler)
