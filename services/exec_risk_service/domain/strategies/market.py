"""MARKET: all of it now, within the slippage guard; one child, or several where the exchange limits their size."""

from __future__ import annotations

from services.exec_risk_service.domain.strategies.taking import take, too_small
from services.exec_risk_service.domain.strategies.view import GiveUp, Plan, SliceView


def plan(view: SliceView) -> Plan:
    """Return the next child: the whole rest. What the book did not give at once is not asked for again."""
    if view.missed:
        return GiveUp("the book gave no more within the slippage guard")
    return too_small(view) or take(view, view.remaining)
