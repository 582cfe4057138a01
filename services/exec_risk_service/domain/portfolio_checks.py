"""Pre-trade checks that look at the whole account: exposure, correlation, value at risk, margin, pace.

What an order makes smaller it may make smaller: an exposure above its limit denies only orders that add to it.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from functools import lru_cache

from services.exec_risk_service.domain.denials import Denial, DenialCode
from services.exec_risk_service.domain.risk_checks import EntryOrder, RiskView, max_symbol_exposure
from services.exec_risk_service.domain.value_at_risk import (
    Horizon,
    TailRisk,
    effective_exposure,
    horizon_of,
    tail_risk,
    value_at_risk_ceiling,
)
from shared.trading.instruments import timeframe_duration
from shared.trading.money import ZERO

# -- freshness and pace ------------------------------------------------------------------------------------------------


def mark_is_fresh(order: EntryOrder, view: RiskView) -> Denial | None:
    """The newest price is young enough by market time, and we heard of it lately by wall time."""
    limit = _candle(view.rules.timeframe) * view.rules.limits.max_mark_age_candles
    for clock, age in (("market", view.mark_age), ("wall", view.mark_age_wall)):
        if age is None:
            return Denial(DenialCode.MARK_STALE, f"the age of the price of {order.symbol} is not known")
        if age > limit:
            old, oldest = age.total_seconds(), limit.total_seconds()
            return Denial(
                DenialCode.MARK_STALE,
                f"the price of {order.symbol} is {old:.0f} s of {clock} time old; limit {oldest:.0f} s",
            )
    return None


def symbol_is_rested(order: EntryOrder, view: RiskView) -> Denial | None:
    """Some time has passed since the symbol lost money, or since any close of it."""
    close = view.pace.closes.get(order.symbol)
    if close is None or view.market_time is None:
        return None
    limits = view.rules.limits
    # The newest price may be a little older than the trade that closed the position.
    passed = max(timedelta(0), view.market_time - close.at)
    if close.net_pnl < 0 and passed < limits.cooldown_after_loss:
        return Denial(
            DenialCode.COOLDOWN_AFTER_LOSS,
            f"{order.symbol} lost {-close.net_pnl:.2f} USD {passed.total_seconds():.0f} s ago; it rests "
            f"{limits.cooldown_after_loss.total_seconds():.0f} s of market time",
        )
    if passed < limits.cooldown_after_close:
        return Denial(
            DenialCode.COOLDOWN_AFTER_CLOSE,
            f"a position in {order.symbol} was closed {passed.total_seconds():.0f} s ago; the symbol rests "
            f"{limits.cooldown_after_close.total_seconds():.0f} s of market time",
        )
    return None


def entries_are_paced(_order: EntryOrder, view: RiskView) -> Denial | None:
    """The bucket holds one more entry."""
    limit = view.rules.limits.max_entries_per_minute
    if view.market_time is not None and view.pace.room(view.market_time, limit) < 1:
        return Denial(
            DenialCode.ENTRIES_TOO_FAST,
            f"{view.pace.spent:.0f} entries followed each other up to {view.pace.spent_at:%H:%M:%S} of market time; "
            f"limit {limit} per minute",
        )
    return None


# -- exposure ----------------------------------------------------------------------------------------------------------


def within_symbol_exposure(order: EntryOrder, view: RiskView) -> Denial | None:
    """The symbol holds no more than allowed once everything pending is filled."""
    limit = max_symbol_exposure(view)
    before = view.exposures.by_symbol.get(order.symbol, ZERO)
    after = before + order.signed_size
    if abs(after) > max(limit, abs(before)):
        return Denial(
            DenialCode.SYMBOL_EXPOSURE_TOO_LARGE,
            f"{order.symbol} would hold {abs(after):.2f} USD with what is pending; limit {limit:.2f} USD",
        )
    return None


def within_gross_exposure(order: EntryOrder, view: RiskView) -> Denial | None:
    """All positions and pending entries together stay below a multiple of equity."""
    after = view.exposures.gross + order.size_usd
    limit = view.rules.limits.max_gross_exposure
    return _above("gross exposure", after, limit, view, DenialCode.GROSS_EXPOSURE_TOO_LARGE)


def within_net_exposure(order: EntryOrder, view: RiskView) -> Denial | None:
    """Longs and shorts do not differ by more than a multiple of equity."""
    before = view.exposures.net
    after = before + order.signed_size
    if abs(after) <= abs(before):
        return None
    limit = view.rules.limits.max_net_exposure
    return _above("net exposure", abs(after), limit, view, DenialCode.NET_EXPOSURE_TOO_LARGE)


def within_correlated_exposure(order: EntryOrder, view: RiskView) -> Denial | None:
    """The symbols that move with the order's symbol do not hold too much in one direction.

    Opposite correlation turns the sign; a correlation that is not known counts as the worst.
    """
    before = correlated_exposure(order, view)
    after = before + order.signed_size
    if abs(after) <= abs(before):
        return None
    limit = view.rules.limits.max_correlated_exposure
    name = f"exposure that moves with {order.symbol} (correlation {view.rules.limits.correlation_threshold:g} or more)"
    return _above(name, abs(after), limit, view, DenialCode.CORRELATED_EXPOSURE_TOO_LARGE)


def correlated_exposure(order: EntryOrder, view: RiskView) -> Decimal:
    """Return the signed value that moves with the order's symbol, USDT."""
    threshold = view.rules.limits.correlation_threshold
    total = ZERO
    for symbol, exposure in view.exposures.by_symbol.items():
        correlation = view.panel.correlation_of(order.symbol, symbol)
        if correlation is None:
            total += abs(exposure) * order.side.sign
        elif abs(correlation) >= threshold:
            total += exposure if correlation > 0 else -exposure
    return total


def within_effective_exposure(order: EntryOrder, view: RiskView) -> Denial | None:
    """The portfolio, each pair weighed by its correlation, stays below a multiple of equity."""
    assert view.equity is not None
    limit = view.rules.limits.max_effective_exposure
    if view.exposures.gross + order.size_usd <= limit * view.equity:
        return None  # no correlation makes the portfolio larger than its gross value
    before, after = _before_and_after(order, view)
    value = effective_exposure(after, view.panel)
    denial = _above("effective exposure", cents(value), limit, view, DenialCode.EFFECTIVE_EXPOSURE_TOO_LARGE)
    return denial if denial is not None and value > effective_exposure(before, view.panel) else None


def within_value_at_risk(order: EntryOrder, view: RiskView) -> Denial | None:
    """The portfolio's value at risk, the worse of history and normal model, stays below a fraction of equity."""
    assert view.equity is not None
    limits = view.rules.limits
    limit = view.equity * limits.max_value_at_risk
    exposures = {**view.exposures.by_symbol, order.symbol: _after(order, view)}
    if value_at_risk_ceiling(exposures, view.panel, _horizon(view), limits.value_at_risk_level) <= limit:
        return None
    before, after = _before_and_after(order, view)
    value = cents(portfolio_risk(after, view).value_at_risk)
    if value <= limit:
        return None
    marginal = value - cents(portfolio_risk(before, view).value_at_risk)
    if marginal <= 0:
        return None
    hours = limits.value_at_risk_horizon.total_seconds() / 3600
    return Denial(
        DenialCode.VALUE_AT_RISK_TOO_LARGE,
        f"value at risk ({limits.value_at_risk_level:.0%}, {hours:g} h) would be {value:.2f} USD, "
        f"{marginal:.2f} USD of it from this order; limit {limit:.2f} USD",
    )


def portfolio_risk(exposures: dict[str, float], view: RiskView, level: float | None = None) -> TailRisk:
    """Return the tail risk of ``exposures`` under the settings of ``view``."""
    level = view.rules.limits.value_at_risk_level if level is None else level
    return tail_risk(exposures, view.panel, _horizon(view), level)


def _horizon(view: RiskView) -> Horizon:
    limits = view.rules.limits
    return horizon_of(limits.value_at_risk_horizon, _candle(view.rules.timeframe), limits.assumed_volatility)


@lru_cache(maxsize=8)
def _candle(timeframe: str) -> timedelta:
    return timeframe_duration(timeframe)


def _after(order: EntryOrder, view: RiskView) -> Decimal:
    """Return what the symbol of ``order`` would hold, USDT."""
    return view.exposures.by_symbol.get(order.symbol, ZERO) + order.signed_size


def _before_and_after(order: EntryOrder, view: RiskView) -> tuple[dict[str, float], dict[str, float]]:
    before = {symbol: float(value) for symbol, value in view.exposures.by_symbol.items()}
    return before, {**before, order.symbol: before.get(order.symbol, 0.0) + float(order.signed_size)}


def _above(name: str, value: Decimal, limit: Decimal, view: RiskView, code: DenialCode) -> Denial | None:
    assert view.equity is not None
    if value <= limit * view.equity:
        return None
    times = value / view.equity
    return Denial(code, f"{name} would be {value:.2f} USD, {times:.2f} times equity; limit {limit:g} times")


def cents(value: float) -> Decimal:
    """Return ``value`` to the cent: the last bits of floats must not decide."""
    return Decimal(repr(round(value, 2)))


# -- margin ------------------------------------------------------------------------------------------------------------


def within_margin_headroom(order: EntryOrder, view: RiskView) -> Denial | None:
    """The initial margin is free and leaves the reserve; open orders and unknown outcomes count as used."""
    assert view.available is not None
    assert view.equity is not None
    needed = order.size_usd / order.leverage
    reserve = view.equity * view.rules.limits.margin_reserve
    if needed + reserve > view.available:
        return Denial(
            DenialCode.MARGIN_TOO_SMALL,
            f"margin of {needed:.2f} USD is needed and {reserve:.2f} USD stay in reserve, "
            f"{view.available:.2f} USD are available",
        )
    return None


def within_maintenance(order: EntryOrder, view: RiskView) -> Denial | None:
    """The maintenance margin of everything, the order included, leaves enough of the equity."""
    assert view.equity is not None
    assert view.instrument is not None
    after = view.maintenance + order.size_usd * view.instrument.maintenance_rate
    limit = view.equity * view.rules.limits.max_maintenance
    if after > limit:
        return Denial(
            DenialCode.MAINTENANCE_TOO_HIGH,
            f"maintenance margin would be {after:.2f} USD; limit {limit:.2f} USD, "
            f"{view.rules.limits.max_maintenance * 100:g} % of equity",
        )
    return None


def stops_before_liquidation(order: EntryOrder, view: RiskView) -> Denial | None:
    """The position is stopped well before the exchange would liquidate it, even if it stood alone."""
    assert view.instrument is not None
    distance = (1 / order.leverage - view.instrument.maintenance_rate) * 100
    needed = order.stop_loss_pct * view.rules.limits.liquidation_buffer
    if needed > distance:
        return Denial(
            DenialCode.LIQUIDATION_BEFORE_STOP,
            f"at leverage {order.leverage.normalize():f} liquidation is {distance:.2f} % away; a stop at "
            f"{order.stop_loss_pct:g} % needs {needed:.2f} %",
        )
    return None
