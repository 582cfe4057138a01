"""From the size that a signal suggests to the quantity that is ordered: scaled, then only ever lowered."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal

from services.exec_risk_service.domain.denials import Denial, DenialCode
from services.exec_risk_service.domain.inputs import Signal
from services.exec_risk_service.domain.risk_checks import EntryOrder, RiskView, max_leverage, max_position_size
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

    Size, then leverage, are lowered to their caps; whether the result may trade is for the checks to say.
    """
    if signal.price is None:
        return Denial(DenialCode.SIGNAL_INCOMPLETE, "the signal has no price")
    if signal.size_usd is None:
        return Denial(DenialCode.SIGNAL_INCOMPLETE, "the signal suggests no size")
    stop = stop_loss_pct(signal, view.rules)
    size = _lowest(signal.size_usd * Decimal(str(view.policy.policy.scaling_factor)), size_cap(view, stop))
    return EntryOrder(
        symbol=signal.symbol,
        side=signal.action.side,
        size_usd=size,
        quantity=quantity_for(size, signal.price, view),
        price=signal.price,
        leverage=_leverage(signal, view),
        stop_loss_pct=stop,
        confidence=Decimal(str(signal.confidence)),
    )


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


def _lowest(wanted: Decimal, cap: Decimal) -> Decimal:
    # NaN cannot be compared: it stays what it is, and the checks refuse it.
    return min(wanted, cap) if wanted.is_finite() else wanted


def _leverage(signal: Signal, view: RiskView) -> Decimal:
    suggested = view.rules.default_leverage if signal.leverage is None else signal.leverage
    if not suggested.is_finite():
        return suggested
    # The exchange knows whole numbers only; rounding down binds more margin, never less.
    return max(_ONE, min(suggested, max_leverage(view)).to_integral_value(ROUND_FLOOR))
