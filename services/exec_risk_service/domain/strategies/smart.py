"""SMART, the adaptive logic for execution (AELM): picks strategy, slices and their pace from what trading would cost.

Compared are the price of taking everything now (half the spread, the way into the book, and what past executions cost
more than their book had promised) and the price of waiting (the market moves meanwhile). Small orders on a deep book
are one market order; the larger the share of the visible depth, the more slices, the more volatile the market, the
closer together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from services.exec_risk_service.domain.executions import Strategy, Urgency
from services.exec_risk_service.domain.quotes import Quote
from shared.trading.money import ZERO
from shared.trading.orders import Side

#: Share of the depth within the tolerance that one order may take unseen.
_UNSEEN_SHARE = {Urgency.LOW: Decimal("0.05"), Urgency.NORMAL: Decimal("0.10"), Urgency.HIGH: Decimal("0.25")}
#: Share of the tolerated slippage that taking at once may cost.
_CHEAP = {Urgency.LOW: Decimal("0.1"), Urgency.NORMAL: Decimal("0.5"), Urgency.HIGH: Decimal(1)}
#: Market time that the book gets to recover between two slices.
_PAUSE = {
    Urgency.LOW: timedelta(seconds=60),
    Urgency.NORMAL: timedelta(seconds=20),
    Urgency.HIGH: timedelta(seconds=5),
}
_SHORTEST_PAUSE = timedelta(seconds=2)
_MOST_SLICES = 30
#: From here on the time of day matters enough to follow the volume curve.
_WORTH_A_CURVE = timedelta(minutes=3)


@dataclass(frozen=True, slots=True)
class Situation:
    """What the choice depends on.

    Attributes:
        side: BUY or SELL.
        quantity: Base asset.
        quote: The book; None while it is not known.
        tolerance_pct: Most slippage that is accepted, percent.
        urgency: How much speed may cost.
        volatility_pct: Standard deviation of one minute's return, percent; None while it is not known.
        excess_pct: What past executions cost more than promised, percent.
        knows_the_day: The volume of every time of day is known.
    """

    side: Side
    quantity: Decimal
    quote: Quote | None
    tolerance_pct: Decimal
    urgency: Urgency
    volatility_pct: Decimal | None = None
    excess_pct: Decimal = ZERO
    knows_the_day: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """How to work an order.

    Attributes:
        strategy: Never SMART.
        explanation: The numbers behind it, one line.
        slices: Parts; 1 where it is not sliced.
        pause: Market time between two of them.
        expected_pct: Slippage that the book promises for taking everything now, percent; None when it is not known.
    """

    strategy: Strategy
    explanation: str
    slices: int = 1
    pause: timedelta = timedelta(0)
    expected_pct: Decimal | None = None

    @property
    def duration(self) -> timedelta:
        return self.pause * self.slices


def choose(situation: Situation) -> Choice:
    """Return how to work the order of ``situation``."""
    quote = situation.quote
    if quote is None or quote.is_crossed:
        return Choice(Strategy.MARKET, "the book is not known: one bounded order")
    limit = quote.mid * (1 + situation.side.sign * situation.tolerance_pct / 100)
    depth = quote.depth_within(situation.side, limit)
    promised = _promised_pct(situation, quote)
    cost = max(ZERO, promised + situation.excess_pct)
    share = situation.quantity / depth if depth > 0 else Decimal(_MOST_SLICES)
    seen = _story(situation, quote, share=share, cost=cost)
    unseen, cheap = _UNSEEN_SHARE[situation.urgency], situation.tolerance_pct * _CHEAP[situation.urgency]
    if share <= unseen and cost <= cheap:
        return Choice(Strategy.MARKET, f"{seen}: one market order", expected_pct=promised)
    if share <= unseen and situation.urgency is not Urgency.HIGH:
        return Choice(Strategy.LIMIT, f"{seen}: rests at the touch and follows it", expected_pct=promised)
    return _sliced(situation, seen, share / unseen, promised)


def _sliced(situation: Situation, seen: str, wanted: Decimal, promised: Decimal) -> Choice:
    slices = max(2, min(_MOST_SLICES, int(wanted) + 1))
    pause = _pause(situation)
    curved = situation.knows_the_day and pause * slices >= _WORTH_A_CURVE
    strategy = Strategy.VWAP if curved else Strategy.TWAP
    told = f"{seen}: {slices} slices, one every {pause.total_seconds():.0f} s"
    return Choice(strategy, told, slices, pause, promised)


def _pause(situation: Situation) -> timedelta:
    """Return the pause between slices: shorter where the market would move by more than is tolerated meanwhile."""
    pause = _PAUSE[situation.urgency]
    if situation.volatility_pct is None or situation.volatility_pct <= 0:
        return pause
    # The move over t minutes grows with the root of t: it stays within a fourth of the tolerance.
    calm = float(situation.tolerance_pct / 4 / situation.volatility_pct) ** 2
    return max(_SHORTEST_PAUSE, min(pause, timedelta(minutes=min(calm, 60.0))))


def _promised_pct(situation: Situation, quote: Quote) -> Decimal:
    walk = quote.walk(situation.side, situation.quantity)
    price = walk.average if walk.quantity >= situation.quantity else walk.worst
    return (price / quote.mid - 1) * 100 * situation.side.sign


def _story(situation: Situation, quote: Quote, *, share: Decimal, cost: Decimal) -> str:
    volatility = situation.volatility_pct
    moves = "unknown" if volatility is None else f"{volatility:.3f} % a minute"
    return (
        f"{situation.quantity} is {share * 100:.1f} % of the depth within {situation.tolerance_pct} %, "
        f"spread {quote.spread_pct:.4f} %, volatility {moves}, expected cost {cost:.4f} % "
        f"(past executions {situation.excess_pct:+.4f} %), urgency {situation.urgency.value}"
    )
