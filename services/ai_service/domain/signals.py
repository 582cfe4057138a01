"""From a forecast to an action: the only place where floats of a model become a decision to trade."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.ai_service.domain.forecasts import Forecast
from services.ai_service.domain.sizing import Bet, SizingRule, size_bet
from shared.trading.instruments import timeframe_duration
from shared.trading.policy import RiskPolicy

#: No signal is acted on later than this after its candle closed, market time.
LONGEST_SIGNAL_LIFE = timedelta(seconds=300)


class Action(StrEnum):
    """What to do."""

    BUY = "BUY"
    SELL = "SELL"
    HOLD = "HOLD"


@dataclass(frozen=True, slots=True)
class SignalRule:
    """Thresholds of an entry.

    Attributes:
        min_confidence: Lowest calibrated probability of the chosen side, 0 to 1; the policy may ask for more.
        min_strength: Share of past forecasts that this one must exceed, 0 to 1.
    """

    min_confidence: float
    min_strength: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one candle, and why.

    Attributes:
        action: BUY, SELL or HOLD.
        confidence: Calibrated probability of the likelier side, 0.5 to 1, whatever the action.
        score: Strength of the forecast, 0 to 1.
        net_return_pct: Expected return on the likelier side after costs, percent of the position.
        reason: One line for a person.
        exit_pct: Distance of take profit and stop loss, percent of price.
        bet: Suggested position; None for HOLD.
    """

    action: Action
    confidence: float
    score: float
    net_return_pct: float
    reason: str
    exit_pct: float
    bet: Bet | None = None


def decide(forecast: Forecast, rule: SignalRule, sizing: SizingRule, policy: RiskPolicy, *, on_trial: bool) -> Decision:
    """Return what to do about ``forecast``.

    Args:
        forecast: The joint outlook.
        rule: Thresholds.
        sizing: Settings of the sizing, with the costs of a round trip.
        policy: Limits in force.
        on_trial: The model was never promoted and trades on paper: it may take positions of the exploration size
            although its expected return does not cover the costs.
    """
    side = Action.BUY if forecast.p_up >= 0.5 else Action.SELL
    confidence = max(forecast.p_up, 1 - forecast.p_up)
    favour = forecast.expected_return_pct if side is Action.BUY else -forecast.expected_return_pct
    net = favour - sizing.round_trip_cost_pct
    bet = size_bet(confidence, forecast.barrier_pct, sizing, policy, exploring=False)
    if on_trial and (net <= 0 or bet.size_usd <= 0):
        bet = size_bet(confidence, forecast.barrier_pct, sizing, policy, exploring=True)
    obstacle = _first_obstacle(
        (forecast.strength < rule.min_strength, f"strength {forecast.strength:.2f} below {rule.min_strength:.2f}"),
        (confidence < rule.min_confidence, f"confidence {confidence:.4f} below {rule.min_confidence:.4f}"),
        (
            confidence < policy.global_min_confidence,
            f"confidence {confidence:.4f} below {policy.global_min_confidence:.4f} of the policy",
        ),
        (net <= 0 and not on_trial, f"expected return after costs is {net:.4f} %, not above 0"),
        (bet.size_usd <= 0, f"no position is worth taking: {bet.limited_by} says 0 USDT"),
    )
    return Decision(
        action=Action.HOLD if obstacle else side,
        confidence=confidence,
        score=forecast.strength,
        net_return_pct=net,
        reason=obstacle or f"{bet.limited_by}: {bet.size_usd:.2f} USDT",
        exit_pct=round(forecast.barrier_pct, 4),
        bet=None if obstacle else bet,
    )


def _first_obstacle(*checks: tuple[bool, str]) -> str | None:
    return next((reason for failed, reason in checks if failed), None)


def expires_at(candle_close: datetime, timeframe: str) -> datetime:
    """Return the market time after which nobody may act on a signal of this candle."""
    return candle_close + min(timeframe_duration(timeframe), LONGEST_SIGNAL_LIFE)
