"""How much to bet at most: the Kelly criterion on the account's own record, weighed against the signal's claim."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from services.exec_risk_service.domain.risk_limits import RiskLimits

#: Closed trades that are remembered.
REMEMBERED_RESULTS = 100


@dataclass(frozen=True, slots=True)
class TradeRecord:
    """Results of our newest closed trades.

    Attributes:
        results: Profit after fees and funding as a fraction of the position's value, oldest first.
    """

    results: tuple[float, ...] = ()

    def with_result(self, result: float) -> TradeRecord:
        """Return the record after one more trade."""
        return replace(self, results=(*self.results, result)[-REMEMBERED_RESULTS:])

    @property
    def wins(self) -> tuple[float, ...]:
        """Results above 0."""
        return tuple(result for result in self.results if result > 0)

    @property
    def losses(self) -> tuple[float, ...]:
        """Results of 0 and below, without their sign."""
        return tuple(-result for result in self.results if result <= 0)

    @property
    def payoff(self) -> float | None:
        """Mean win divided by mean loss; None until there was money on both sides."""
        wins, losses = self.wins, self.losses
        if not wins or sum(losses) <= 0:
            return None
        return (sum(wins) / len(wins)) / (sum(losses) / len(losses))


@dataclass(frozen=True, slots=True)
class KellyBet:
    """The largest bet on one signal, with what it came from.

    Attributes:
        p_win: Probability of a win.
        payoff: Win per loss.
        full: Full Kelly, a fraction of equity; below 0 without an edge.
        at_risk: Fraction of equity that may be lost at the stop.
        trades: Closed trades behind it.
        limited_by: ``kelly``, ``kelly_cap`` or ``kelly_floor``.
    """

    p_win: float
    payoff: float
    full: float
    at_risk: Decimal
    trades: int
    limited_by: str

    def told(self) -> str:
        """Return it in words."""
        return (
            f"Kelly allows {self.at_risk * 100:.2f} % of equity at risk ({self.limited_by}: p {self.p_win:.3f}, "
            f"payoff {self.payoff:.2f}, full Kelly {self.full * 100:.1f} %, {self.trades} closed trades)"
        )


def kelly_fraction(p_win: float, payoff: float) -> float:
    """Return ``p - (1 - p) / b``: the fraction of capital whose bet grows it fastest; below 0 without an edge."""
    return p_win - (1.0 - p_win) / payoff


def kelly_bet(record: TradeRecord, *, confidence: float, payoff: float, limits: RiskLimits) -> KellyBet:
    """Return the largest bet.

    The signal's confidence and the distances of its exits count as ``kelly_prior_trades`` trades beside the record, so
    that a new account believes the signal and an old one its own results.

    Args:
        record: Closed trades of this account.
        confidence: Of the signal, 0 to 1.
        payoff: Distance of its target per distance of its stop, above 0.
        limits: Settings.
    """
    count, prior = len(record.results), limits.kelly_prior_trades
    weight = count / (count + prior) if count else 0.0
    p_win = weight * (len(record.wins) / count if count else 0.0) + (1.0 - weight) * confidence
    known = record.payoff
    odds = payoff if known is None else weight * known + (1.0 - weight) * payoff
    full = kelly_fraction(p_win, odds)
    wanted = limits.kelly_share * Decimal(repr(round(full, 12)))
    at_risk = max(limits.kelly_floor, min(limits.kelly_cap, wanted))
    limited_by = "kelly" if at_risk == wanted else "kelly_cap" if wanted > at_risk else "kelly_floor"
    return KellyBet(p_win, odds, full, at_risk, count, limited_by)
