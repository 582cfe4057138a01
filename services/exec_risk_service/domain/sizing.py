"""From the size that a signal suggests to the quantity that is ordered: scaled, then only ever lowered."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from services.exec_risk_service.domain.denials import Denial, DenialCode
from services.exec_risk_service.domain.inputs import Signal
from services.exec_risk_service.domain.kelly import KellyBet, kelly_bet
from services.exec_risk_service.domain.risk_checks import (
    EntryOrder,
    RiskView,
    Sizing,
    max_leverage,
    max_position_size,
    max_symbol_exposure,
)
from services.exec_risk_service.domain.rules import Rules
from shared.trading.money import ZERO

_ONE = Decimal(1)


def stop_loss_pct(signal: Signal, rules: Rules) -> Decimal:
    """Return the distance of the stop, percent."""
    return rules.default_stop_loss_pct if signal.stop_loss_pct is None else signal.stop_loss_pct


def take_profit_pct(signal: Signal, rules: Rules) -> Decimal | None:
    """Return the distance of the target, percent; None for no target."""
    return rules.default_take_profit_pct if signal.take_profit_pct is None else signal.take_profit_pct


def size_entry(signal: Signal, view: RiskView) -> EntryOrder | Denial:
    """Return the order that ``signal`` may become, or why there is none.

    Size, then leverage, are lowered to their caps, Kelly's among them;
    whether the result may trade is for the checks to say.
    """
    if signal.price is None:
        return Denial(DenialCode.SIGNAL_INCOMPLETE, "the signal has no price")
    if signal.size_usd is None:
        return Denial(DenialCode.SIGNAL_INCOMPLETE, "the signal suggests no size")
    stop = stop_loss_pct(signal, view.rules)
    size, sizing = _sized(signal, signal.size_usd, stop, view)
    return EntryOrder(
        symbol=signal.symbol,
        side=signal.action.side,
        size_usd=size,
        quantity=quantity_for(size, signal.price, view),
        price=signal.price,
        leverage=_leverage(signal, stop, view),
        stop_loss_pct=stop,
        confidence=Decimal(str(signal.confidence)),
        sizing=sizing,
    )


def _sized(signal: Signal, suggested: Decimal, stop: Decimal, view: RiskView) -> tuple[Decimal, Sizing]:
    """Return the size, USDT, and what set it."""
    kelly = _kelly(signal, stop, view)
    limits = {
        "signal": suggested * Decimal(str(view.policy.policy.scaling_factor)),
        "position_size_cap": max_position_size(view),
        "risk_per_trade": size_cap(view, stop),
        "symbol_exposure": _symbol_room(signal, view),
    }
    if kelly is not None and view.equity is not None:
        limits["kelly"] = max(ZERO, kelly.at_risk * view.equity * 100 / stop)
    if not limits["signal"].is_finite():  # NaN cannot be compared: it stays what it is, and the checks refuse it
        return limits["signal"], Sizing(suggested, "signal", kelly)
    limited_by = min(limits, key=lambda name: limits[name])
    return limits[limited_by], Sizing(suggested, limited_by, kelly)


def _symbol_room(signal: Signal, view: RiskView) -> Decimal:
    """Return what may still be added to the symbol in the signal's direction, USDT."""
    held = view.exposures.by_symbol.get(signal.symbol, ZERO) * signal.action.side.sign
    return max(ZERO, max_symbol_exposure(view) - held)


def _kelly(signal: Signal, stop: Decimal, view: RiskView) -> KellyBet | None:
    target = take_profit_pct(signal, view.rules)
    terms = (stop, Decimal(str(signal.confidence)), view.equity, stop if target is None else target)
    if any(term is None or not term.is_finite() or term <= 0 for term in terms):
        return None  # the checks refuse the order with the true reason
    payoff = 1.0 if target is None else float(target / stop)
    return kelly_bet(view.record, confidence=signal.confidence, payoff=payoff, limits=view.rules.limits)


def size_cap(view: RiskView, stop_pct: Decimal) -> Decimal:
    """Return the largest size that the cap and the risk per trade allow, USDT; what is unknown does not lower it."""
    cap = max_position_size(view)
    if view.equity is None or not view.equity.is_finite() or not stop_pct.is_finite() or stop_pct <= 0:
        return cap  # the checks refuse the order with the true reason
    at_risk = view.equity * Decimal(str(view.policy.policy.max_risk_pct_per_trade))
    return max(ZERO, min(cap, at_risk * 100 / stop_pct))


def quantity_for(size_usd: Decimal, price: Decimal, view: RiskView) -> Decimal:
    """Return the quantity on the lot grid; 0 when the size is too small, or nothing is known of the symbol."""
    if view.instrument is None or not price.is_finite() or price <= 0 or not size_usd.is_finite() or size_usd <= 0:
        return ZERO
    return view.instrument.quantity_for(size_usd, price)


def _leverage(signal: Signal, stop: Decimal, view: RiskView) -> Decimal:
    suggested = view.rules.default_leverage if signal.leverage is None else signal.leverage
    if not suggested.is_finite():
        return suggested
    # The exchange knows whole numbers only; rounding down binds more margin, never less.
    highest = min(suggested, max_leverage(view), _leverage_for(stop, view))
    return max(_ONE, highest.to_integral_value(ROUND_FLOOR))


def _leverage_for(stop: Decimal, view: RiskView) -> Decimal:
    """Return the highest leverage at which the stop comes well before the liquidation."""
    if view.instrument is None or not stop.is_finite() or stop <= 0:
        return max_leverage(view)
    return 1 / (stop * view.rules.limits.liquidation_buffer / 100 + view.instrument.maintenance_rate)
