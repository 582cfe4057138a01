"""Events of the exec-risk-service: orders, positions, the account, and what stops trading."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shared.events.envelope import EventPayload
from shared.events.fields import (
    Count,
    Leverage,
    NotNegative,
    PositivePercent,
    PositiveUsd,
    Price,
    Score,
    Symbol,
    Text,
    UtcTime,
)
from shared.trading.orders import OrderStatus, Side

ExecutionStrategy = Literal["MARKET", "LIMIT", "TWAP", "VWAP", "SMART"]
Urgency = Literal["LOW", "NORMAL", "HIGH"]
Outcome = Literal["ACCEPTED", "REJECTED", "UNKNOWN"]
ExecutionStatus = Literal["SUCCESS", "PARTIAL", "FAILED", "REJECTED"]
ExitReason = Literal[
    "TAKE_PROFIT",
    "STOP_LOSS",
    "TRAILING_STOP",
    "MANUAL",
    "SIGNAL_EXIT",
    "LIQUIDATION",
    "TIMEOUT",
    "EMERGENCY_STOP",
    "REBALANCE",
]
RiskSeverity = Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"]
RiskAction = Literal["BLOCK_TRADES", "REDUCE_LEVERAGE", "CLOSE_POSITIONS", "EMERGENCY_STOP"]
TradingState = Literal["ACTIVE", "REDUCING", "HALTED"]


class ExecutionRequestPayload(EventPayload):
    """Ask for one trade without a signal, for example by hand."""

    symbol: Symbol = Field(description="Venue symbol.")
    side: Side = Field(description="Direction.")
    position_size_usd: PositiveUsd = Field(description="Position size, USDT, above 0.")
    leverage: Leverage = Field(description="Leverage, 1 to 125.")
    stop_loss_pct: PositivePercent | None = Field(default=None, description="Distance of the stop loss, percent.")
    take_profit_pct: PositivePercent | None = Field(default=None, description="Distance of the take profit, percent.")
    trailing_stop_pct: PositivePercent | None = Field(
        default=None, description="Distance of the trailing stop, percent."
    )
    execution_strategy: ExecutionStrategy = Field(default="SMART", description="How to work the order.")
    urgency: Urgency = Field(default="NORMAL", description="How much speed may cost.")
    slippage_tolerance_pct: NotNegative = Field(default=0.5, description="Most slippage to accept, percent.")
    signal_confidence: Score = Field(description="Confidence of whoever asks, 0 to 1.")
    signal_source: Text = Field(description="Who asks.")
    reduce_only: bool = Field(default=False, description="May only make the position smaller.")
    expires_at: UtcTime | None = Field(default=None, description="Market time after which nobody may act on it.")


class OrderUpdatedPayload(EventPayload):
    """One of our orders changed its state."""

    symbol: Symbol = Field(description="Venue symbol.")
    client_order_id: Text = Field(description="Id that we gave the order.")
    exchange_order_id: str | None = Field(default=None, description="The exchange's id, once known.")
    side: Side = Field(description="Direction.")
    order_type: Text = Field(description="Binance's order type, for example MARKET or STOP_MARKET.")
    status: OrderStatus = Field(description="State after the change.")
    quantity: NotNegative = Field(
        description="Ordered quantity, base asset; 0 where the order closes whatever is open."
    )
    filled_quantity: NotNegative = Field(description="Filled so far, base asset.")
    average_price: Price | None = Field(default=None, description="Average price of the fills, USDT.")
    outcome: Outcome = Field(description="What is known of the request that was sent.")
    reason: str | None = Field(default=None, description="Why it was refused or ended early.")
    is_algo: bool = Field(description="Whether it rests as a conditional (algo) order.")


class ExecutionResultPayload(EventPayload):
    """How one trade that somebody asked for ended."""

    symbol: Symbol = Field(description="Venue symbol.")
    side: Side = Field(description="Direction.")
    status: ExecutionStatus = Field(description="How it ended.")
    rejection_reason: str | None = Field(default=None, description="First reason against it, when there was one.")
    filled_size_usd: NotNegative = Field(description="Filled value, USDT; 0 when nothing was.")
    filled_price: NotNegative = Field(description="Average fill price, USDT; 0 when nothing was filled.")
    filled_quantity: NotNegative = Field(description="Filled quantity, base asset.")
    leverage_applied: float = Field(ge=0, le=125, description="Leverage in force; 0 when nothing was filled.")
    slippage_pct: float | None = Field(
        default=None, description="Cost against the arrival price, percent; above 0 is worse."
    )
    execution_time_ms: NotNegative | None = Field(default=None, description="From decision to last fill, ms.")
    commission_usd: float | None = Field(default=None, description="Fees paid, USDT; below 0 for a rebate.")
    exchange_order_id: str | None = Field(default=None, description="The exchange's order id.")
    internal_order_id: str | None = Field(default=None, description="Our client order id.")
    strategy: ExecutionStrategy | None = Field(default=None, description="How the order was worked.")
    arrival_price: Price | None = Field(default=None, description="Price when the decision fell, USDT.")


class PositionOpenedPayload(EventPayload):
    """A position exists since its first fill."""

    symbol: Symbol = Field(description="Venue symbol.")
    entry_price: Price = Field(description="Average entry price, USDT.")
    size_usd: PositiveUsd = Field(description="Entry value, USDT.")
    leverage: Leverage = Field(description="Leverage, 1 to 125.")
    is_long: bool = Field(description="True for a long position.")
    stop_loss_price: Price | None = Field(default=None, description="Trigger of the stop loss, USDT.")
    take_profit_price: Price | None = Field(default=None, description="Trigger of the take profit, USDT.")
    trailing_stop_active: bool = Field(default=False, description="Whether the stop follows the price.")
    position_id: Text = Field(description="Id of the position.")
    entry_confidence: Score | None = Field(default=None, description="Confidence of the signal behind it, 0 to 1.")
    entry_model: str | None = Field(default=None, description="Model behind that signal.")
    entry_timestamp: UtcTime = Field(description="Market time of the first fill.")


class PositionUpdatedPayload(EventPayload):
    """An open position at its current mark price."""

    symbol: Symbol = Field(description="Venue symbol.")
    position_id: Text = Field(description="Id of the position.")
    mark_price: Price = Field(description="Mark price, USDT.")
    size_usd: NotNegative = Field(description="Value at the mark price, USDT.")
    unrealized_pnl_usd: float = Field(description="Open profit, USDT.")
    unrealized_pnl_pct: float = Field(description="Open profit against the entry value, percent.")
    stop_loss_price: Price | None = Field(default=None, description="Trigger of the stop loss, USDT.")
    take_profit_price: Price | None = Field(default=None, description="Trigger of the take profit, USDT.")
    max_profit_pct: float = Field(description="Best open profit so far, percent.")
    max_drawdown_pct: float = Field(description="Worst fall from that best, percent.")


class PositionClosedPayload(EventPayload):
    """A position is flat again; what the models learn from."""

    symbol: Symbol = Field(description="Venue symbol.")
    position_id: Text = Field(description="Id of the position.")
    entry_price: Price = Field(description="Average entry price, USDT.")
    exit_price: Price = Field(description="Average exit price, USDT.")
    size_usd: PositiveUsd = Field(description="Entry value, USDT.")
    leverage: Leverage = Field(description="Leverage, 1 to 125.")
    is_long: bool = Field(description="True for a long position.")
    pnl_usd: float = Field(description="Realised profit, USDT.")
    pnl_pct: float = Field(description="Realised profit against the entry value, percent.")
    duration_seconds: NotNegative = Field(description="From first to last fill, seconds of market time.")
    max_drawdown_pct: float | None = Field(default=None, description="Worst fall from its best profit, percent.")
    max_profit_pct: float | None = Field(default=None, description="Best open profit, percent.")
    exit_reason: ExitReason = Field(description="Why it was closed.")
    entry_confidence: Score | None = Field(default=None, description="Confidence of the signal behind it, 0 to 1.")
    entry_model: str | None = Field(default=None, description="Model behind that signal.")
    entry_timestamp: UtcTime | None = Field(
        default=None, description="Market time of the first fill; ours always say it."
    )
    exit_timestamp: UtcTime | None = Field(
        default=None, description="Market time of the last fill; ours always say it."
    )
    market_condition: str | None = Field(default=None, description="Regime at the exit.")
    volatility_at_entry: NotNegative | None = Field(default=None, description="Volatility at the entry.")
    volatility_at_exit: NotNegative | None = Field(default=None, description="Volatility at the exit.")
    commission_usd: float | None = Field(default=None, description="Fees of all its fills, USDT; below 0 for a rebate.")
    funding_usd: float | None = Field(default=None, description="Funding received (above 0) or paid, USDT.")


class RiskAlertPayload(EventPayload):
    """Risk management acted, or says why it refused."""

    severity: RiskSeverity = Field(description="How bad.")
    alert_type: Text = Field(description="For example TRADE_BLOCKED or DRAWDOWN_LIMIT.")
    message: Text = Field(description="One line for a person.")
    current_drawdown_pct: float | None = Field(default=None, description="Fall from the day's peak equity, percent.")
    max_allowed_drawdown_pct: float | None = Field(default=None, description="Its limit, percent.")
    open_positions_count: Count | None = Field(default=None, description="Open positions.")
    max_positions: Count | None = Field(default=None, description="Their limit.")
    total_exposure_usd: float | None = Field(default=None, description="Value of all positions, USDT.")
    action_taken: RiskAction | None = Field(default=None, description="What was done.")
    affected_symbols: tuple[str, ...] | None = Field(default=None, description="Venue symbols it is about.")
    risk_profile: str | None = Field(default=None, description="Risk mode in force.")


class AccountUpdatedPayload(EventPayload):
    """The account as exec-risk sees it."""

    wallet_balance_usd: float = Field(description="Wallet balance, USDT.")
    equity_usd: float = Field(description="Wallet balance plus open profit, USDT.")
    available_usd: float = Field(description="Free for new positions, USDT.")
    unrealized_pnl_usd: float = Field(description="Open profit of all positions, USDT.")
    margin_ratio_pct: NotNegative = Field(description="Maintenance margin against equity, percent; 100 liquidates.")
    peak_equity_usd: float = Field(description="Highest equity of the day, USDT.")
    drawdown_pct: NotNegative = Field(description="Fall from that peak, percent.")
    gross_exposure_usd: NotNegative = Field(description="Long plus short value, USDT.")
    net_exposure_usd: float = Field(description="Long minus short value, USDT.")


class EmergencyStopPayload(EventPayload):
    """Trading is stopped and stays so until a person says otherwise."""

    trigger_reason: Text = Field(description="Why.")
    severity: Literal["EMERGENCY", "CRITICAL"] = Field(description="How bad.")
    close_all_positions: bool = Field(default=True, description="Whether all positions are closed.")
    cancel_all_orders: bool = Field(default=True, description="Whether all orders are cancelled.")
    block_new_trades: bool = Field(default=True, description="Whether new trades are refused.")
    drawdown_pct: float | None = Field(default=None, description="Fall from the day's peak equity, percent.")
    consecutive_losses: Count | None = Field(default=None, description="Losing trades in a row.")
    system_health_status: str | None = Field(default=None, description="Health of the system.")
    estimated_recovery_time_seconds: Count | None = Field(default=None, description="Until trading may go on, seconds.")
    manual_intervention_required: bool = Field(default=False, description="Whether only a person can end it.")


class TradingStateChangedPayload(EventPayload):
    """What kind of orders may be sent changed."""

    previous: TradingState = Field(description="State before.")
    current: TradingState = Field(description="State now.")
    reason: Text = Field(description="Why.")
    changed_by: Text = Field(description="Person or rule that changed it.")
