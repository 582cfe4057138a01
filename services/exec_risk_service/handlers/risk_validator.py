"""RPC ``validate_risk``: would this trade pass the checks that every signal passes? Changes nothing."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from services.exec_risk_service.domain.denials import DenialCode
from services.exec_risk_service.domain.risk_checks import EntryOrder, RiskView
from services.exec_risk_service.domain.risk_engine import first_reason, risk_view
from services.exec_risk_service.domain.risk_report import risk_report
from services.exec_risk_service.domain.sizing import quantity_for, size_cap
from services.exec_risk_service.handlers.ledger import Ledger
from shared.rpc.commands import ValidateRiskRequest, ValidateRiskResult
from shared.trading.money import ZERO, to_decimal


class RiskValidator:
    """Answers with the same checks, in the same order, as for signals."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def report(self) -> dict[str, Any]:
        """Return the portfolio's risk and the limits in force; money in USDT."""
        return risk_report(self._ledger.book, self._ledger.context())

    async def validate_risk(self, request: ValidateRiskRequest) -> ValidateRiskResult:
        """Return the verdict, the first reason against the trade, and the largest size that would pass."""
        book, context = self._ledger.book, self._ledger.context()
        view = risk_view(book, request.symbol, context)
        if request.symbol in book.taken_symbols():
            reason = f"a position in {request.symbol} is open or being opened"
            return ValidateRiskResult(approved=False, reason=reason, code=DenialCode.SYMBOL_BUSY, max_allowed_size=0)
        largest = float(_largest_size(request, view))
        denial = first_reason(_order(request, view), view)
        if denial is None:
            return ValidateRiskResult(approved=True, max_allowed_size=largest)
        return ValidateRiskResult(approved=False, reason=denial.text, code=denial.code, max_allowed_size=largest)


def _order(request: ValidateRiskRequest, view: RiskView, size_usd: Decimal | None = None) -> EntryOrder:
    price = view.mark or ZERO
    size = to_decimal(request.size_usd, name="size_usd") if size_usd is None else size_usd
    return EntryOrder(
        symbol=request.symbol,
        side=request.side,
        size_usd=size,
        quantity=quantity_for(size, price, view),
        price=price,
        leverage=to_decimal(request.leverage, name="leverage"),
        stop_loss_pct=view.rules.default_stop_loss_pct,
        confidence=Decimal(1),  # a person or program asks, not a model
    )


def _largest_size(request: ValidateRiskRequest, view: RiskView) -> Decimal:
    """Return the largest size, USDT, that passes every check; 0 when no size does."""
    margin = (view.available or ZERO) * to_decimal(request.leverage, name="leverage")
    largest = max(ZERO, min(size_cap(view, view.rules.default_stop_loss_pct), margin))
    return largest if largest > 0 and first_reason(_order(request, view, largest), view) is None else ZERO
