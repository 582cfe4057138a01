"""The portfolio's risk in figures: exposures, value at risk, drawdown, and which limit is in force from where."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.portfolio_checks import portfolio_risk
from services.exec_risk_service.domain.risk_checks import (
    RiskView,
    max_daily_drawdown,
    max_leverage,
    max_position_size,
    max_positions,
    max_symbol_exposure,
)
from services.exec_risk_service.domain.risk_engine import risk_view
from services.exec_risk_service.domain.rules import Context
from services.exec_risk_service.domain.value_at_risk import LEVELS, effective_exposure

POLICY = "policy"
CONFIGURATION = "configuration"


def risk_report(book: Book, context: Context) -> dict[str, Any]:
    """Return the figures as JSON values; money in USDT, None for what is not known."""
    view = risk_view(book, "", context)
    exposures = {symbol: float(value) for symbol, value in sorted(view.exposures.by_symbol.items())}
    return {
        "equity_usd": None if view.equity is None else float(view.equity),
        "available_usd": None if view.available is None else float(view.available),
        "open_positions": view.open_positions,
        "exposure": {
            "by_symbol_usd": exposures,
            "pending_usd": {symbol: float(value) for symbol, value in sorted(view.exposures.pending.items())},
            "gross_usd": float(view.exposures.gross),
            "net_usd": float(view.exposures.net),
            "effective_usd": effective_exposure(exposures, view.panel),
            "maintenance_margin_usd": float(view.maintenance),
        },
        "value_at_risk": [_tail(exposures, view, level) for level in LEVELS],
        "correlation": _correlations(exposures, view),
        "symbols_without_history": sorted(exposures.keys() - view.panel.columns.keys()),
        "drawdown": _drawdown(book, view),
        "closed_trades": {"count": len(view.record.results), "wins": len(view.record.wins)},
        "limits": _limits(view),
    }


def _tail(exposures: dict[str, float], view: RiskView, level: float) -> dict[str, float]:
    risk = portfolio_risk(exposures, view, level)
    return {
        "level": level,
        "historical_usd": round(risk.historical, 2),
        "parametric_usd": round(risk.parametric, 2),
        "historical_shortfall_usd": round(risk.historical_shortfall, 2),
        "parametric_shortfall_usd": round(risk.parametric_shortfall, 2),
    }


def _correlations(exposures: dict[str, float], view: RiskView) -> list[dict[str, Any]]:
    symbols = [symbol for symbol in exposures if symbol in view.panel.columns]
    return [
        {"symbols": [one, other], "correlation": round(view.panel.correlation_of(one, other) or 0.0, 4)}
        for number, one in enumerate(symbols)
        for other in symbols[number + 1 :]
    ]


def _drawdown(book: Book, view: RiskView) -> dict[str, float | None]:
    cash = book.cash
    return {
        "day_pct": None if view.drawdown is None else float(view.drawdown * 100),
        "day_peak_equity_usd": float(cash.day_peak_equity),
        "peak_equity_usd": float(cash.peak_equity),
        "limit_pct": float(max_daily_drawdown(view) * 100),
    }


def _limits(view: RiskView) -> list[dict[str, Any]]:
    policy, rules, limits = view.policy.policy, view.rules, view.rules.limits
    both: list[tuple[str, Decimal | int, float]] = [
        ("max_leverage", max_leverage(view), policy.max_leverage),
        ("max_position_size_usd", max_position_size(view), policy.position_size_cap),
        ("max_symbol_exposure_usd", max_symbol_exposure(view), policy.position_size_cap),
        ("max_open_positions", max_positions(view), policy.max_positions),
        ("max_daily_drawdown_pct", max_daily_drawdown(view) * 100, policy.max_daily_drawdown * 100),
    ]
    # Where policy and settings agree, the policy is named: it is what a person can change while trading.
    rows = [
        _limit(name, value, POLICY if float(value) >= float(theirs) else CONFIGURATION) for name, value, theirs in both
    ]
    rows += [
        _limit("min_confidence", policy.global_min_confidence, POLICY),
        _limit("max_risk_per_trade_pct", policy.max_risk_pct_per_trade * 100, POLICY),
    ]
    configured = {
        "max_gross_exposure_times_equity": limits.max_gross_exposure,
        "max_net_exposure_times_equity": limits.max_net_exposure,
        "max_correlated_exposure_times_equity": limits.max_correlated_exposure,
        "max_effective_exposure_times_equity": limits.max_effective_exposure,
        "max_value_at_risk_pct": limits.max_value_at_risk * 100,
        "margin_reserve_pct": limits.margin_reserve * 100,
        "max_maintenance_margin_pct": limits.max_maintenance * 100,
        "max_price_deviation_pct": rules.max_price_deviation * 100,
        "max_entries_per_minute": limits.max_entries_per_minute,
    }
    return rows + [_limit(name, value, CONFIGURATION) for name, value in configured.items()]


def _limit(name: str, value: Any, origin: str) -> dict[str, Any]:
    return {"name": name, "value": round(float(value), 8), "origin": origin}
