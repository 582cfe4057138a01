"""The verdict on an order: run the checks in order, stop at the first reason."""

from __future__ import annotations

from collections.abc import Iterable

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.denials import Denial
from services.exec_risk_service.domain.risk_checks import CHECKS, Check, EntryOrder, RiskView
from services.exec_risk_service.domain.rules import Context


def first_reason(order: EntryOrder, view: RiskView, checks: Iterable[Check] = CHECKS) -> Denial | None:
    """Return why ``order`` is denied, or None when every check lets it pass."""
    for check in checks:
        denial = check(order, view)
        if denial is not None:
            return denial
    return None


def risk_view(book: Book, symbol: str, context: Context) -> RiskView:
    """Return what the checks see of ``book`` for an entry in ``symbol``."""
    equity = book.equity()
    return RiskView(
        policy=context.policy,
        rules=context.rules,
        instrument=context.instruments.get(symbol),
        mark=book.mark(symbol),
        equity=equity,
        available=book.available(),
        drawdown=None if equity is None else book.cash.drawdown(equity),
        open_positions=len(book.taken_symbols()),
        trading=book.trading,
        storage_alarm=context.storage_alarm,
        entry_bar=context.entry_bar,
    )
