"""What guards a position, as values that it carries: its time without a stop, and how its exits came to be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Cover:
    """How long a position stood without a stop for all of it, wall time.

    It counts from the first fill that no stop covers to the exchange's word that a stop of the whole size rests.

    Attributes:
        since: Wall time from which on no stop covers it all; None while one does.
        exposed: Sum of the times that are over.
        first: The time from the first fill to the first stop; None before that stop.
        alerted: A person was told about the present time.
    """

    since: datetime | None = None
    exposed: timedelta = timedelta(0)
    first: timedelta | None = None
    alerted: bool = False

    def at(self, now: datetime, *, is_covered: bool) -> Cover:
        """Return what is true at ``now``."""
        if not is_covered:
            return replace(self, since=self.since or now)
        if self.since is None:
            return self
        passed = max(timedelta(0), now - self.since)
        first = passed if self.first is None else self.first
        return Cover(since=None, exposed=self.exposed + passed, first=first)

    def seconds(self, now: datetime) -> float:
        """Return all time without a stop until ``now``, seconds."""
        return (self.exposed + self.present(now)).total_seconds()

    def present(self, now: datetime) -> timedelta:
        """Return how long there is no stop by now; zero while there is one."""
        return timedelta(0) if self.since is None else max(timedelta(0), now - self.since)


class ExitBasis(StrEnum):
    """What put a stop or a target where it is."""

    PLAN = "PLAN"  # the percentages of the signal, or the defaults
    VOLATILITY = "VOLATILITY"  # average true range and volatility of the past candles
    ADVICE = "ADVICE"  # rl.decision of type dynamic_tpsl
    BREAK_EVEN = "BREAK_EVEN"
    TRAILING = "TRAILING"
    TIME_DECAY = "TIME_DECAY"

    @property
    def is_first(self) -> bool:
        """True while nothing that happened since the entry has moved it."""
        return self in (ExitBasis.PLAN, ExitBasis.VOLATILITY, ExitBasis.ADVICE)


@dataclass(frozen=True, slots=True)
class ExitRules:
    """How stops and targets are placed and moved; R is the distance of the first stop from the entry price.

    Attributes:
        is_dynamic: False keeps stop and target where the percentages put them.
        atr_period: Candles of the average true range.
        min_candles: With fewer past candles the percentages count.
        atr_multiple: Average true ranges between entry and stop.
        volatility_horizon: Candles over which the volatility is summed up, as the other measure of that distance.
        band: A signal's own distance counts between 1/band and band times the measured one.
        min_stop_pct: Nearest stop, percent of the entry price; likewise the farthest.
        max_stop_pct: Farthest stop; the policy's risk per trade may ask for a nearer one.
        max_target_pct: Farthest target, percent of the entry price.
        break_even_at_r: Best profit, in R, from which on the stop covers entry price and fees.
        fee_pct: Fee of one side, percent, when the fills tell less.
        is_trailing: The stop follows the best price.
        trail_from_r: Best profit, in R, from which on it does.
        trail_atr_multiple: Its distance in average true ranges; R while the history is short.
        decay_from: Fraction of the longest holding time after which stop and target come closer.
        decay_to: What is left of their distances at the end of that time.
        min_gap_pct: Least distance to the mark price, percent of it.
        step_r: Least move, in R: a stop is not replaced for less.
    """

    is_dynamic: bool = True
    atr_period: int = 14
    min_candles: int = 30
    atr_multiple: Decimal = Decimal(3)
    volatility_horizon: int = 16
    band: Decimal = Decimal(2)
    min_stop_pct: Decimal = Decimal("0.2")
    max_stop_pct: Decimal = Decimal(10)
    max_target_pct: Decimal = Decimal(20)
    break_even_at_r: Decimal = Decimal(1)
    fee_pct: Decimal = Decimal("0.05")
    is_trailing: bool = True
    trail_from_r: Decimal = Decimal("1.5")
    trail_atr_multiple: Decimal = Decimal(3)
    decay_from: Decimal = Decimal("0.5")
    decay_to: Decimal = Decimal("0.4")
    min_gap_pct: Decimal = Decimal("0.1")
    step_r: Decimal = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class ExitAdvice:
    """What ``rl.decision`` of type ``dynamic_tpsl`` wants.

    Attributes:
        stop_loss_pct: Distance of the stop from the entry price, percent; None to leave it.
        take_profit_pct: Distance of the target from it, percent; None to leave it.
        is_trailing: Whether the stop follows the best price; None to leave that.
    """

    stop_loss_pct: Decimal | None
    take_profit_pct: Decimal | None
    is_trailing: bool | None


@dataclass(frozen=True, slots=True)
class Protection:
    """What guards a position besides the two orders that rest on the exchange.

    Attributes:
        cover: Its time without a stop.
        risk: Distance of the first stop, USDT per unit: one R; None while no stop was planned.
        reward: Distance of the first target, USDT per unit; None without one.
        stop_basis: What put the stop where it is.
        target_basis: What put the target where it is.
        is_trailing: The stop may follow the best price.
        liquidation_price: Where the exchange would liquidate, USDT, as it said last; None when it would not.
        is_isolated: Margin type; None before the exchange said it.
        margin_called_until: Wall time until which the last margin call counts.
        told_at: Wall time of the last news between two candles.
    """

    cover: Cover = field(default_factory=Cover)
    risk: Decimal | None = None
    reward: Decimal | None = None
    stop_basis: ExitBasis = ExitBasis.PLAN
    target_basis: ExitBasis = ExitBasis.PLAN
    is_trailing: bool = False
    liquidation_price: Decimal | None = None
    is_isolated: bool | None = None
    margin_called_until: datetime | None = None
    told_at: datetime | None = None
