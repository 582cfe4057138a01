"""Carries out what the ledger decided: sends orders once, cancels, and reports back what the exchange said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from services.exec_risk_service.domain.inputs import (
    AnswerLost,
    CancelRefused,
    ProvenAbsent,
    SendRefused,
    SendStarted,
)
from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import OrderGateway, ref_of
from shared.errors import ConnectionLostError, ExchangeError, OrderRejectedError, TransientError
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import NO_SPANS, Spans
from shared.trading.orders import OrderStatus

#: Refusals about the moment, not about the order: rate limits, overload, maintenance, a time stamp, the firewall.
_RETRYABLE_CODES = frozenset({-1001, -1003, -1008, -1015, -1016, -1021, -5028})
_RETRYABLE_STATUS = frozenset({403, 418, 429, 503})

log = structlog.get_logger(__name__)


class OrderSender:
    """Talks to the exchange for the ledger. An order is sent at most once: the ledger marks it first."""

    def __init__(
        self,
        ledger: Ledger,
        gateway: OrderGateway,
        metrics: Metrics | None = None,
        spans: Spans = NO_SPANS,
        *,
        entry_bar: Callable[[], str | None] = lambda: None,
        opened: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            gateway: Sends.
            metrics: Counts orders.
            spans: Shows each order.
            entry_bar: Tells why this process may send no entry now, None while it may; exits and cancels pass.
            opened: Returns when the exchange takes requests at all; exits and cancels wait for that, entries do not.
        """
        self._ledger = ledger
        self._gateway = gateway
        self._entry_bar = entry_bar
        self._opened = opened
        self._metrics = metrics
        self._spans = spans
        self._leverage: dict[str, int] = {}

    async def submit(self, client_order_id: str) -> None:
        """Send one intent; whatever happens on the way ends as an input of the ledger."""
        order = self._ledger.book.orders.get(client_order_id)
        if order is None or order.status is not OrderStatus.INITIALIZED:
            return
        if order.leg is not Leg.ENTRY and self._opened is not None:
            await self._opened()
        if order.leg is Leg.ENTRY and not (await self._may_enter(order) and await self._prepare_leverage(order)):
            return
        await self._ledger.apply(SendStarted(client_order_id))
        # A position that closed meanwhile, or a recovery, may have made the order unwanted.
        marked = self._ledger.book.orders.get(client_order_id)
        if marked is not None and marked.status is OrderStatus.SUBMITTED and await self._may_enter(marked):
            with self._spans.send_order(
                client_order_id=client_order_id,
                symbol=marked.symbol,
                side=marked.side,
                order_type=marked.order_type.value,
                trace_id=marked.provenance.trace_id,
                causation_id=marked.provenance.first_event_id,
            ) as span:
                span.end_as(await self._send(marked))

    def note_leverage(self, symbol: str, leverage: int) -> None:
        """Take over the leverage that a symbol has, whoever set it: the next entry sets its own again."""
        self._leverage[symbol] = leverage

    async def cancel(self, client_order_id: str) -> None:
        """Cancel one resting order; what cannot be cancelled is looked up, because it may have filled."""
        if self._opened is not None:
            await self._opened()
        order = self._ledger.book.orders.get(client_order_id)
        if order is None or order.status.is_terminal:
            return
        try:
            await self._ledger.apply(await self._gateway.cancel(ref_of(order)))
        except (ExchangeError, TransientError) as error:
            log.info("cancel_not_confirmed", client_order_id=client_order_id, error=str(error))
            await self._look_up(order, str(error))

    async def _send(self, order: Order) -> str:
        """Send ``order``; return accepted, rejected or unknown."""
        name = order.client_order_id
        try:
            report = await self._gateway.submit(order)
        except OrderRejectedError as error:
            outcome = self._count(order, "rejected")
            await self._ledger.apply(SendRefused(name, str(error), error.code, _is_retryable(error)))
        except ConnectionLostError as error:
            outcome = self._count(order, "rejected")
            await self._ledger.apply(ProvenAbsent(name, str(error)))
        except Exception as error:  # noqa: BLE001 - whatever else went wrong, the order may exist
            outcome = self._count(order, "unknown")
            await self._ledger.apply(AnswerLost(name, str(error) or type(error).__name__))
        else:
            outcome = self._count(order, "accepted")
            await self._ledger.apply(report)
        return outcome

    async def _may_enter(self, order: Order) -> bool:
        """Ask once more, now that the intent is stored: waiting for the database may have taken the lease's time."""
        why = self._entry_bar() if order.leg is Leg.ENTRY else None
        if why is not None:
            await self._ledger.apply(ProvenAbsent(order.client_order_id, f"not sent: {why}"))
        return why is None

    async def _prepare_leverage(self, order: Order) -> bool:
        """Set the leverage that the order was sized for; an order that cannot have it is not sent."""
        if self._leverage.get(order.symbol) == order.leverage:
            return True
        try:
            await self._gateway.set_leverage(order.symbol, order.leverage)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the order itself was not sent
            await self._ledger.apply(ProvenAbsent(order.client_order_id, f"leverage was not set: {error}"))
            return False
        self._leverage[order.symbol] = order.leverage
        return True

    async def _look_up(self, order: Order, reason: str) -> None:
        try:
            report = await self._gateway.find_order(ref_of(order))
        except TransientError as error:
            log.info("order_lookup_failed", client_order_id=order.client_order_id, error=str(error))
            report = None
        if report is not None:
            await self._ledger.apply(report)
        await self._ledger.apply(CancelRefused(order.client_order_id, reason))

    def _count(self, order: Order, outcome: str) -> str:
        if self._metrics is not None:
            self._metrics.order_sent(order.order_type.value, outcome)
        return outcome


def _is_retryable(error: OrderRejectedError) -> bool:
    return error.code in _RETRYABLE_CODES or error.http_status in _RETRYABLE_STATUS
