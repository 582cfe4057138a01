"""How much to bet: the Kelly criterion with costs, halved and capped."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import InvalidInputError
from shared.trading.policy import RiskPolicy


@dataclass(frozen=True, slots=True)
class SizingRule:
    """Settings of the sizing.

    Attributes:
        capital_usd: Capital that sizes are a share of, USDT; fixed, so that a size depends on the signal alone.
        kelly_share: Part of the full Kelly bet that is placed, 0 to 1; one half gives three quarters of the growth
            for half of the swings.
        round_trip_cost_pct: Fees and slippage of entry plus exit, percent of the position.
        exploration_size_usd: Position, USDT, that a model still on trial takes without a proven edge; 0 for none.
        max_leverage: Highest leverage to suggest.
    """

    capital_usd: float
    kelly_share: float
    round_trip_cost_pct: float
    exploration_size_usd: float
    max_leverage: float

    def __post_init__(self) -> None:
        if not (self.capital_usd > 0 and 0 < self.kelly_share <= 1 and self.max_leverage >= 1):
            raise InvalidInputError(f"capital, Kelly share or leverage out of range: {self}")
        if self.round_trip_cost_pct < 0 or self.exploration_size_usd < 0:
            raise InvalidInputError(f"costs and exploration size must not be below 0: {self}")


@dataclass(frozen=True, slots=True)
class Bet:
    """A suggested position.

    Attributes:
        size_usd: Position value, USDT, to the cent; 0 means stay out.
        leverage: Whole multiple of the margin, at least 1.
        kelly_fraction: Full Kelly: fraction of the capital to put at risk, 0 to 1.
        limited_by: What set the size: ``kelly``, ``position_size_cap``, ``risk_per_trade`` or ``exploration``.
    """

    size_usd: float
    leverage: float
    kelly_fraction: float
    limited_by: str


def kelly_fraction(p_win: float, gain_pct: float, loss_pct: float) -> float:
    """Return the fraction of capital to risk on a bet that wins ``gain_pct`` or loses ``loss_pct``; 0 without edge.

    Args:
        p_win: Probability of winning, 0 to 1.
        gain_pct: Net gain of the position when it wins, percent.
        loss_pct: Net loss when it loses, percent, above 0.
    """
    if gain_pct <= 0:
        return 0.0
    odds = gain_pct / loss_pct
    return max(0.0, p_win - (1 - p_win) / odds)


def size_bet(p_win: float, barrier_pct: float, rule: SizingRule, policy: RiskPolicy, *, exploring: bool) -> Bet:
    """Return the position for a bet with take profit and stop loss ``barrier_pct`` away.

    Args:
        p_win: Probability that the take profit comes first, 0 to 1.
        barrier_pct: Distance of both exits, percent of price, above 0.
        rule: Settings.
        policy: Limits in force.
        exploring: Take the fixed exploration size instead of the Kelly bet.
    """
    loss_pct = barrier_pct + rule.round_trip_cost_pct
    fraction = kelly_fraction(p_win, barrier_pct - rule.round_trip_cost_pct, loss_pct)
    # Who risks a fraction f of the capital and loses loss_pct of the position holds f / loss_pct of it.
    kelly_usd = rule.kelly_share * fraction * rule.capital_usd * 100 / loss_pct
    name, wish_usd = ("exploration", rule.exploration_size_usd) if exploring else ("kelly", kelly_usd)
    limits = {
        name: wish_usd * policy.scaling_factor,
        "position_size_cap": float(policy.position_size_cap),
        "risk_per_trade": policy.max_risk_pct_per_trade * rule.capital_usd * 100 / loss_pct,
    }
    limited_by = min(limits, key=lambda limit: limits[limit])
    return Bet(
        size_usd=round(limits[limited_by], 2),
        leverage=_leverage(barrier_pct, rule, policy),
        kelly_fraction=fraction,
        limited_by=limited_by,
    )


def _leverage(barrier_pct: float, rule: SizingRule, policy: RiskPolicy) -> float:
    """Return a leverage whose liquidation lies at least four stop distances away."""
    room = 100 / (4 * barrier_pct)
    return float(max(1, int(min(room, rule.max_leverage, policy.max_leverage))))
