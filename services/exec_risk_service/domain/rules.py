"""What a decision may read besides the book: settings, the policy, the instruments, the wall time of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from services.exec_risk_service.domain.executions import Strategy
from services.exec_risk_service.domain.governor_rules import GovernorRules
from services.exec_risk_service.domain.protection import ExitRules
from services.exec_risk_service.domain.risk_limits import RiskLimits
from shared.trading.instruments import Instrument
from shared.trading.policy import PolicyState


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits of this installation; the policy may be stricter, never looser.

    Attributes:
        max_leverage: Highest leverage.
        max_position_size_usd: Largest position, USDT.
        max_open_positions: Open positions at the same time.
        max_daily_drawdown: Fraction below the day's peak equity at which entries stop.
        max_price_deviation: Fraction by which a signal's price may differ from the newest mark price.
        default_leverage: Leverage of a signal that suggests none.
        default_stop_loss_pct: Distance of the stop, percent, of a signal that suggests none.
        default_take_profit_pct: Distance of the target, percent, of a signal that suggests none; None for no target.
        max_holding: Market time after which a position is closed.
        exit_retry: Wall time between two tries of a refused exit.
        limits: Limits that the policy does not know.
        timeframe: Candles that are traded, ``1h``.
        max_stop_tries: Stops that failed one after the other, after which a position is closed instead.
        stop_follow_pause: Wall time that the rest of an entry gets to fill before its stop follows what did.
        max_unprotected: Wall time without a stop after which a person is told.
        default_strategy: How an entry is worked when nobody says it.
        max_slippage_pct: Most slippage against the arrival price, percent, when nobody says less.
        retry_attempts: Times that an order is sent when the exchange refuses it for reasons of the moment.
        retry_delay: Wall time before the first repetition; each further one waits twice as long.
        execution_lifetime: Market time after which nothing more of an execution is sent.
        exits: How stops and targets are placed and moved.
        mark_step_pct: Move of the mark price between candles that is told, percent.
        mark_pause: Least wall time between two such news of a position.
        governor: Thresholds of the Safety Governor.
    """

    max_leverage: Decimal = Decimal(20)
    max_position_size_usd: Decimal = Decimal(10_000)
    max_open_positions: int = 10
    max_daily_drawdown: Decimal = Decimal("0.10")
    max_price_deviation: Decimal = Decimal("0.20")
    default_leverage: Decimal = Decimal(1)
    default_stop_loss_pct: Decimal = Decimal(2)
    default_take_profit_pct: Decimal | None = Decimal(4)
    max_holding: timedelta = timedelta(hours=48)
    exit_retry: timedelta = timedelta(seconds=1)
    max_stop_tries: int = 20
    timeframe: str = "1m"
    limits: RiskLimits = field(default_factory=RiskLimits)
    stop_follow_pause: timedelta = timedelta(milliseconds=250)
    max_unprotected: timedelta = timedelta(seconds=3)
    default_strategy: Strategy = Strategy.SMART
    max_slippage_pct: Decimal = Decimal("0.5")
    retry_attempts: int = 3
    retry_delay: timedelta = timedelta(seconds=1)
    execution_lifetime: timedelta = timedelta(minutes=30)
    exits: ExitRules = field(default_factory=ExitRules)
    mark_step_pct: Decimal = Decimal("0.05")
    mark_pause: timedelta = timedelta(seconds=5)
    governor: GovernorRules = field(default_factory=GovernorRules)


@dataclass(frozen=True, slots=True)
class Context:
    """Read-only surroundings of one step.

    Attributes:
        rules: Settings.
        policy: Policy in force.
        instruments: Filters by venue symbol.
        now: Wall time; it enters only durations that are reported, and the pace of retries.
        storage_alarm: Why events could get lost if Redis went away now; None when all is well.
        entry_bar: Why this process may send no entry now: its lease, its clock, the exchange's limits.
    """

    rules: Rules
    policy: PolicyState
    instruments: Mapping[str, Instrument]
    now: datetime
    storage_alarm: str | None = None
    entry_bar: str | None = None
