"""Limits of the Risk OS that the policy does not know: exposure, value at risk, margin, pace, Kelly, hedging."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Settings of the installation; multiples are multiples of equity, fractions are fractions of equity.

    Attributes:
        max_symbol_exposure_usd: Largest value that one symbol may hold, pending entries included, USDT; None for
            the largest position.
        max_gross_exposure: Largest value of all positions without sign, a multiple.
        max_net_exposure: Largest value of all positions with sign, a multiple.
        max_correlated_exposure: Largest value, with sign, of symbols that move together, a multiple.
        max_effective_exposure: Largest value of all positions, each pair weighed by its correlation, a multiple.
        correlation_threshold: Correlation of returns, without sign, from which symbols count as moving together.
        max_value_at_risk: Largest value at risk, a fraction.
        value_at_risk_level: Confidence of that figure.
        value_at_risk_horizon: Market time that it looks ahead.
        assumed_volatility: Volatility per horizon, a fraction, of a symbol without enough history.
        margin_reserve: Fraction of equity that stays free of initial margin.
        max_maintenance: Largest maintenance margin of all positions, a fraction.
        liquidation_buffer: The liquidation must be this many stop distances away.
        max_mark_age_candles: Candles, by market time and by wall time, after which a price is stale.
        cooldown_after_loss: Market time that a symbol rests after a loss.
        cooldown_after_close: Market time that a symbol rests after any close.
        max_entries_per_minute: Entries per minute of market time; that many may also come at once.
        kelly_share: Part of the full Kelly bet that may be placed.
        kelly_cap: Largest bet, a fraction lost at the stop.
        kelly_floor: Smallest bet that Kelly may ask for, likewise; 0 stops trading without an edge.
        kelly_prior_trades: Trades that the signal's own claim counts as.
        hedge_trigger: Net exposure, a multiple, from which a hedge is proposed; None proposes none.
        hedge_ratio: Part of the net exposure that the hedge offsets.
        hedging_enabled: Also carry the proposal out.
    """

    max_symbol_exposure_usd: Decimal | None = None
    max_gross_exposure: Decimal = Decimal(5)
    max_net_exposure: Decimal = Decimal(3)
    max_correlated_exposure: Decimal = Decimal(2)
    max_effective_exposure: Decimal = Decimal(3)
    correlation_threshold: float = 0.7
    max_value_at_risk: Decimal = Decimal("0.10")
    value_at_risk_level: float = 0.99
    value_at_risk_horizon: timedelta = timedelta(days=1)
    assumed_volatility: float = 0.08
    margin_reserve: Decimal = Decimal("0.05")
    max_maintenance: Decimal = Decimal("0.50")
    liquidation_buffer: Decimal = Decimal("1.25")
    max_mark_age_candles: int = 3
    cooldown_after_loss: timedelta = timedelta(0)
    cooldown_after_close: timedelta = timedelta(0)
    max_entries_per_minute: int = 30
    kelly_share: Decimal = Decimal("0.5")
    kelly_cap: Decimal = Decimal("0.05")
    kelly_floor: Decimal = Decimal("0.001")
    kelly_prior_trades: int = 20
    hedge_trigger: Decimal | None = None
    hedge_ratio: Decimal = Decimal("0.5")
    hedging_enabled: bool = False
