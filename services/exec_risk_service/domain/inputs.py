"""The ordered list of things that happen to the account: exec-risk is a fold over these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from services.exec_risk_service.domain.closing_orders import ClosingOrder
from services.exec_risk_service.domain.executions import Strategy, Urgency
from services.exec_risk_service.domain.protection import ExitAdvice
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.reports import CashReport, FillReport, LeverageChanged, MarginCalled, OrderReport
from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from shared.trading.candles import Candle
from shared.trading.orders import Side

#: Open time in ms since the epoch, open, high, low, close, volume.
CandleRow = tuple[int, float, float, float, float, float]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cause:
    """The event behind an input: marked as handled in the same transaction as its effect."""

    event_id: str
    trace_id: str


class Action(StrEnum):
    """What a signal asks for."""

    BUY = "BUY"
    SELL = "SELL"
    HOLD = "HOLD"

    @property
    def side(self) -> Side:
        """Side of the order that would follow; HOLD has none."""
        return Side(self.value)


@dataclass(frozen=True, slots=True)
class Signal:
    """What ai-service suggests.

    Attributes:
        symbol: Venue symbol.
        action: BUY, SELL or HOLD.
        confidence: 0 to 1.
        model: Name of its source.
        price: Close of the candle that it answers, USDT; None when it was not said.
        size_usd: Suggested value of the position, USDT; None when it was not said.
        leverage: Suggested leverage; None when it was not said.
        stop_loss_pct: Suggested distance of the stop, percent; None for the default.
        take_profit_pct: Suggested distance of the target, percent; None for the default.
        at: Market time of the decision.
    """

    symbol: str
    action: Action
    confidence: float
    model: str
    price: Decimal | None
    size_usd: Decimal | None
    leverage: Decimal | None
    stop_loss_pct: Decimal | None
    take_profit_pct: Decimal | None
    at: datetime


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """``signal.generated`` arrived; ``quote`` is the book that it met, None when that could not be read in time."""

    cause: Cause
    signal: Signal
    quote: Quote | None = None


@dataclass(frozen=True, slots=True)
class Ordered:
    """A trade that somebody asks for without a signal.

    Attributes:
        symbol: Venue symbol.
        side: BUY or SELL.
        size_usd: Value to trade, USDT.
        leverage: Leverage.
        stop_loss_pct: Distance of the stop, percent; None for the default. Likewise ``take_profit_pct``.
        strategy: How to work it.
        urgency: How much speed may cost.
        tolerance_pct: Most slippage to accept, percent.
        confidence: Of whoever asks, 0 to 1.
        source: Who asks.
        is_reduce_only: May only make the position smaller.
        expires_at: Market time after which nobody may act on it; None for the usual time.
    """

    symbol: str
    side: Side
    size_usd: Decimal
    leverage: Decimal
    stop_loss_pct: Decimal | None
    take_profit_pct: Decimal | None
    strategy: Strategy
    urgency: Urgency
    tolerance_pct: Decimal
    confidence: Decimal
    source: str
    is_reduce_only: bool
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ExecutionRequested:
    """``execution.request`` arrived at market time ``at``."""

    cause: Cause
    order: Ordered
    at: datetime
    quote: Quote | None = None


class Amplification(StrEnum):
    """What to do with a position that is there."""

    AMPLIFY_POSITION = "AMPLIFY_POSITION"
    ADD_TO_WINNER = "ADD_TO_WINNER"
    CUT_LOSER = "CUT_LOSER"


@dataclass(frozen=True, slots=True)
class AmplificationRequested:
    """``profit.amplification`` arrived at market time ``at``.

    Attributes:
        cause: The event.
        symbol: Venue symbol.
        action: Add to a winner, or close a loser.
        factor: Multiple of the present size, where no size to add is said.
        additional_usd: Size to add, USDT; None for what the factor says.
        max_total_usd: Largest size afterwards, USDT; None for the limits alone.
        at: Market time of its arrival.
        quote: The book that it met; None when that could not be read in time.
    """

    cause: Cause
    symbol: str
    action: Amplification
    factor: Decimal
    additional_usd: Decimal | None
    max_total_usd: Decimal | None
    at: datetime
    quote: Quote | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Change the value of the position in ``symbol`` by ``delta_usd`` (USDT, below 0 makes it smaller)."""

    symbol: str
    delta_usd: Decimal
    reason: str


@dataclass(frozen=True, slots=True)
class RebalanceRequested:
    """``portfolio.balance`` asked for changes at market time ``at``; ``quotes`` are the books of their symbols."""

    cause: Cause
    adjustments: tuple[Adjustment, ...]
    at: datetime
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionsDue:
    """A timer says: go on with the executions; ``quotes`` are the books of their symbols, ``time`` is market time."""

    time: datetime
    quotes: tuple[Quote, ...] = ()


@dataclass(frozen=True, slots=True)
class CandleClosed:
    """``candle.closed`` arrived: a mark price, and market time moved."""

    cause: Cause
    candle: Candle


@dataclass(frozen=True, slots=True)
class SendStarted:
    """The next thing that happens is the request: from here on the order may exist."""

    client_order_id: str


@dataclass(frozen=True, slots=True)
class SendRefused:
    """The exchange definitively refused the order.

    Attributes:
        client_order_id: The order.
        reason: Code and text of the exchange.
        code: Numeric Binance code.
        is_retryable: The refusal was about the moment (overload, rate limit), not about the order.
    """

    client_order_id: str
    reason: str
    code: int | None = None
    is_retryable: bool = False


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """No one knows whether the order exists: it must be looked up, never sent again."""

    client_order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProvenAbsent:
    """The order never reached the exchange."""

    client_order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CancelRefused:
    """A cancel did not work: the order is asked for again later."""

    client_order_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class WalletObserved:
    """The exchange's wallet balance, read at ``time`` (market time) while no fill was under way."""

    wallet: Decimal
    time: datetime


@dataclass(frozen=True, slots=True)
class PositionObserved:
    """The exchange's position, read while no fill was under way; it overrules ours."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal
    time: datetime


@dataclass(frozen=True, slots=True)
class HistoryObserved:
    """Closed candles of ``symbol`` that the exchange remembers and we did not see, read at ``time`` (market time).

    Attributes:
        symbol: Venue symbol.
        timeframe: Length of a candle.
        rows: ``(open time in ms, open, high, low, close, volume)`` as in the exchange's own list, oldest first.
        time: Market time.
    """

    symbol: str
    timeframe: str
    rows: tuple[CandleRow, ...]
    time: datetime

    @property
    def candles(self) -> tuple[Candle, ...]:
        """The rows as candles."""
        return tuple(
            Candle(self.symbol, self.timeframe, EPOCH + timedelta(milliseconds=row[0]), *row[1:]) for row in self.rows
        )


def candle_row(candle: Candle) -> CandleRow:
    """Return ``candle`` as a row of ``HistoryObserved``: a tenth of its size where it is recorded."""
    opened = (candle.open_time - EPOCH) // timedelta(milliseconds=1)
    return opened, candle.open, candle.high, candle.low, candle.close, candle.volume


@dataclass(frozen=True, slots=True)
class FillsConfirmed:
    """Every trade of ``symbol`` up to ``trade_id`` is known: the next look begins after it."""

    symbol: str
    trade_id: int


@dataclass(frozen=True, slots=True)
class UpkeepDue:
    """A timer says: protect what is naked and try refused exits of ``symbol`` again.

    Attributes:
        symbol: Venue symbol.
        time: Market time.
        distrusted: Client ids of protective orders whose answer is missing for too long to count on them.
    """

    symbol: str
    time: datetime
    distrusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TradingRestricted:
    """Something outside the book keeps entries back: no prices, no user stream, a clock that is wrong.

    Attributes:
        cause: Why, for programs.
        reason: Why, one line with the numbers.
        changed_by: Rule or person.
        to: REDUCING or HALTED.
        severity: Of the alert.
    """

    cause: TradingCause
    reason: str
    changed_by: str
    to: TradingState = TradingState.REDUCING
    severity: Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"] = "HIGH"


@dataclass(frozen=True, slots=True)
class TradingLifted:
    """What kept entries back is over."""

    cause: TradingCause
    reason: str
    changed_by: str


@dataclass(frozen=True, slots=True)
class TradingResumed:
    """A person, who is known and gave a reason, lets trading go on."""

    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class ExitsAdvised:
    """``rl.decision`` of type ``dynamic_tpsl`` arrived.

    Attributes:
        cause: The event.
        symbol: Venue symbol.
        advice: Where stop and target should be.
        agent: Version of the agent that says so.
        decided_at: Market time of the decision.
        at: Market time of its arrival.
    """

    cause: Cause
    symbol: str
    advice: ExitAdvice
    agent: str
    decided_at: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class SystemModeChanged:
    """``system.mode_changed`` arrived.

    Attributes:
        cause: The event.
        mode: NORMAL, DEFENSIVE, EMERGENCY or MAINTENANCE.
        reason: Why.
        changed_by: Person or rule.
        allow_new_trades: Positions may be opened.
        allow_position_expansion: Positions may grow.
        force_close_positions: Everything is to be closed.
    """

    cause: Cause
    mode: str
    reason: str
    changed_by: str
    allow_new_trades: bool
    allow_position_expansion: bool
    force_close_positions: bool


@dataclass(frozen=True, slots=True)
class PositionMarked:
    """What the exchange shows of a position that agrees with ours.

    Attributes:
        symbol: Venue symbol.
        mark_price: USDT.
        liquidation_price: USDT; None when the exchange would not liquidate.
        leverage: Leverage in force; None when it was not told.
        is_isolated: Margin type; None when it was not told.
        time: Market time.
    """

    symbol: str
    mark_price: Decimal
    liquidation_price: Decimal | None
    leverage: int | None
    is_isolated: bool | None
    time: datetime


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The emergency stop is wanted.

    Attributes:
        stop_id: Names it; the same stop may be asked for any number of times.
        reason: Why.
        requested_by: Person or program.
    """

    stop_id: str
    reason: str
    requested_by: str


@dataclass(frozen=True, slots=True)
class StopReported:
    """How far the emergency stop is, as the exchange shows it.

    Attributes:
        stop_id: Which.
        message: One line with the numbers.
        is_flat: Neither position nor order is left, and nothing under way can bring one.
    """

    stop_id: str
    message: str
    is_flat: bool


@dataclass(frozen=True, slots=True)
class ClosingOrderNoted:
    """The emergency stop sends this order, or sent it: its fills belong to it."""

    order: ClosingOrder


Input = (
    SignalReceived
    | ExitsAdvised
    | SystemModeChanged
    | PositionMarked
    | LeverageChanged
    | MarginCalled
    | ExecutionRequested
    | AmplificationRequested
    | RebalanceRequested
    | ExecutionsDue
    | CandleClosed
    | SendStarted
    | SendRefused
    | AnswerLost
    | ProvenAbsent
    | CancelRefused
    | OrderReport
    | FillReport
    | CashReport
    | WalletObserved
    | PositionObserved
    | HistoryObserved
    | FillsConfirmed
    | UpkeepDue
    | TradingRestricted
    | TradingLifted
    | TradingResumed
    | StopRequested
    | StopReported
    | ClosingOrderNoted
)
