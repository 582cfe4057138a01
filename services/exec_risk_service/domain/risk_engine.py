"""The verdict on an order: run the checks in order, stop at the first reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal

from services.exec_risk_service.domain import portfolio_checks as portfolio
from services.exec_risk_service.domain import risk_checks as order_checks
from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.denials import Denial
from services.exec_risk_service.domain.exposure import Exposures, exposures_of
from services.exec_risk_service.domain.price_history import PriceHistories, PriceHistory
from services.exec_risk_service.domain.return_panel import ReturnPanel, panel_of
from services.exec_risk_service.domain.risk_checks import Check, EntryOrder, RiskView
from services.exec_risk_service.domain.rules import Context
from shared.trading.money import ZERO

#: Maintenance margin of a symbol that the exchange does not list any more, a fraction of its value.
_UNLISTED_RATE = Decimal("0.5")

#: In this order; the first reason wins. What is unknown comes first, so that the later checks may rely on it.
CHECKS: tuple[Check, ...] = (
    order_checks.trading_is_allowed,
    order_checks.numbers_are_finite,
    order_checks.policy_is_fresh,
    order_checks.events_can_be_kept,
    order_checks.entries_may_be_sent,
    order_checks.account_is_known,
    order_checks.instrument_is_known,
    order_checks.mark_is_known,
    portfolio.mark_is_fresh,
    order_checks.terms_are_positive,
    order_checks.price_is_plausible,
    order_checks.confidence_is_enough,
    portfolio.symbol_is_rested,
    portfolio.entries_are_paced,
    order_checks.within_daily_drawdown,
    order_checks.within_leverage,
    order_checks.within_size,
    order_checks.within_risk_at_stop,
    portfolio.stops_before_liquidation,
    portfolio.within_margin_headroom,
    portfolio.within_maintenance,
    order_checks.within_open_positions,
    portfolio.within_symbol_exposure,
    portfolio.within_gross_exposure,
    portfolio.within_net_exposure,
    portfolio.within_correlated_exposure,
    portfolio.within_effective_exposure,
    portfolio.within_value_at_risk,
)


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
    mark = book.marks.get(symbol)
    market_time = book.market_time
    exposures = exposures_of(book)
    return RiskView(
        policy=context.policy,
        rules=context.rules,
        instrument=context.instruments.get(symbol),
        mark=None if mark is None else mark.price,
        equity=equity,
        available=None if equity is None else equity - book.margin_used(),
        drawdown=None if equity is None else book.cash.drawdown(equity),
        open_positions=len(exposures.held.keys() | exposures.pending.keys()),
        trading=book.trading,
        peak_equity=book.cash.day_peak_equity,
        exposures=exposures,
        panel=return_panel(book.history),
        maintenance=_maintenance(exposures, context),
        market_time=market_time,
        mark_age=None if mark is None or market_time is None else max(timedelta(0), market_time - mark.at),
        mark_age_wall=None if mark is None else max(timedelta(0), context.now - mark.seen_at),
        pace=book.pace,
        record=book.record,
        storage_alarm=context.storage_alarm,
        entry_bar=context.entry_bar,
    )


def return_panel(history: Mapping[str, PriceHistory]) -> ReturnPanel:
    """Return the panel of ``history``; that of the book's own histories is computed once per candle."""
    return history.figure(panel_of) if isinstance(history, PriceHistories) else panel_of(history)


def _maintenance(exposures: Exposures, context: Context) -> Decimal:
    total = ZERO
    for values in (exposures.held, exposures.pending):
        for symbol, value in values.items():
            instrument = context.instruments.get(symbol)
            total += abs(value) * (_UNLISTED_RATE if instrument is None else instrument.maintenance_rate)
    return total
