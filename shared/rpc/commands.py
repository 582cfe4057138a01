"""The commands that services answer, with the model of each request and result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from shared.events.fields import (
    Count,
    Leverage,
    NotNegative,
    PositiveUsd,
    Price,
    Score,
    Symbol,
    Text,
    Timeframe,
    UtcTime,
)
from shared.events.registry import AI, ANALYTICS_OS, EXEC_RISK
from shared.events.v3.ai import RankedSymbol, SignalAction
from shared.events.v3.analytics_os import HealthLevel
from shared.trading.orders import Side


class RpcModel(BaseModel):
    """Base of requests and results: frozen, finite numbers only, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


ResultT = TypeVar("ResultT", bound=RpcModel)


class Question(RpcModel, Generic[ResultT]):
    """Base of requests: ``Question[Answer]`` is answered with an ``Answer``, which ``RpcClient.ask`` returns."""


class GetSignalResult(RpcModel):
    """The newest signal of that symbol."""

    symbol: Symbol = Field(description="Venue symbol.")
    action: SignalAction = Field(description="What to do.")
    confidence: Score = Field(description="Confidence in the action, 0 to 1.")
    model_source: Text = Field(description="Model or ensemble that spoke.")
    score: Score | None = Field(default=None, description="Strength of the signal, 0 to 1.")
    timeframe: Timeframe | None = Field(default=None, description="Length of the candle behind it.")
    price: Price | None = Field(default=None, description="Close of that candle, USDT.")
    candle_close_time: UtcTime | None = Field(default=None, description="Close of that candle, market time.")
    suggested_size_usd: NotNegative | None = Field(default=None, description="Suggested position size, USDT.")
    suggested_leverage: Leverage | None = Field(default=None, description="Suggested leverage, 1 to 125.")
    model_version: str | None = Field(default=None, description="Version of the model.")
    signal_id: str | None = Field(default=None, description="Id of the published signal.")
    expires_at: UtcTime | None = Field(default=None, description="Market time after which nobody may act on it.")


class GetSignalRequest(Question[GetSignalResult]):
    """Ask for the newest signal of one symbol."""

    symbol: Symbol = Field(description="Venue symbol.")


class GetTopOpportunitiesResult(RpcModel):
    """The best symbols, best first."""

    opportunities: tuple[RankedSymbol, ...] = Field(description="Symbols, best first.")
    scanned_at: UtcTime | None = Field(default=None, description="Market time of the scan.")


class GetTopOpportunitiesRequest(Question[GetTopOpportunitiesResult]):
    """Ask for the best symbols of the universe."""

    top_n: int = Field(default=10, ge=1, le=500, description="How many.")


class RetrainModelResult(RpcModel):
    """Whether the training began."""

    status: Literal["started", "already_running", "refused"] = Field(description="What became of it.")
    job_id: str | None = Field(default=None, description="Training job.")
    reason: str | None = Field(default=None, description="Why it was refused.")


class RetrainModelRequest(Question[RetrainModelResult]):
    """Ask the ai-service to train one model again."""

    model_id: Text = Field(description="Id of the model.")
    reason: str = Field(default="", description="Why.")
    job_id: str | None = Field(default=None, description="Name of the job; new when absent.")


class ValidateRiskResult(RpcModel):
    """The verdict of the risk checks."""

    approved: bool = Field(description="Whether it would pass.")
    reason: str | None = Field(default=None, description="First reason against it, with the number and the limit.")
    code: str | None = Field(default=None, description="Name of that reason; docs/risk.md lists them.")
    max_allowed_size: NotNegative = Field(description="Largest size that would pass now, USDT; 0 when none would.")


class ValidateRiskRequest(Question[ValidateRiskResult]):
    """Ask whether a trade would pass the risk checks; changes nothing."""

    symbol: Symbol = Field(description="Venue symbol.")
    size_usd: PositiveUsd = Field(description="Position size, USDT, above 0.")
    leverage: Leverage = Field(description="Leverage, 1 to 125.")
    side: Side = Field(default=Side.BUY, description="Direction.")


class Position(RpcModel):
    """One open position."""

    position_id: Text = Field(description="Id of the position.")
    symbol: Symbol = Field(description="Venue symbol.")
    side: Side = Field(description="BUY for a long position, SELL for a short one.")
    quantity: float = Field(gt=0, description="Quantity, base asset, above 0.")
    entry_price: Price = Field(description="Average entry price, USDT.")
    mark_price: Price | None = Field(default=None, description="Newest mark price, USDT.")
    unrealized_pnl_usd: float | None = Field(default=None, description="Open profit at the mark price, USDT.")
    leverage: Leverage | None = Field(default=None, description="Leverage, 1 to 125.")
    stop_loss_price: Price | None = Field(default=None, description="Trigger of the stop loss, USDT.")
    take_profit_price: Price | None = Field(default=None, description="Trigger of the take profit, USDT.")
    opened_at: UtcTime | None = Field(default=None, description="Market time of the first fill.")


class GetPositionStatusResult(RpcModel):
    """The position in that symbol, if there is one."""

    status: Literal["open", "no_position"] = Field(description="Whether there is one.")
    position: Position | None = Field(default=None, description="The position, when it is open.")


class GetPositionStatusRequest(Question[GetPositionStatusResult]):
    """Ask for the position in one symbol."""

    symbol: Symbol = Field(description="Venue symbol.")


class GetPositionsResult(RpcModel):
    """All open positions."""

    positions: tuple[Position, ...] = Field(description="Open positions by symbol.")


class GetPositionsRequest(Question[GetPositionsResult]):
    """Ask for all open positions."""


class EmergencyStopResult(RpcModel):
    """How far the stop is."""

    status: Literal["stopped", "in_progress", "failed"] = Field(description="stopped only when verified flat.")
    orders_cancelled: Count = Field(description="Orders cancelled so far.")
    positions_closed: Count = Field(description="Positions closed so far.")
    positions_left: Count = Field(description="Positions still open.")
    message: str = Field(default="", description="One line for a person.")


class EmergencyStopRequest(Question[EmergencyStopResult]):
    """Stop all trading now; only a person can end the stop."""

    reason: Text = Field(description="Why.")
    requested_by: Text = Field(description="Person or program that asks.")
    close_all_positions: bool = Field(default=True, description="Close every position at market.")
    cancel_all_orders: bool = Field(default=True, description="Cancel every order.")


class ServiceHealthEntry(RpcModel):
    """One service in the health of the system."""

    status: HealthLevel = Field(description="Verdict; UNKNOWN before its first heartbeat.")
    last_heartbeat_age_seconds: NotNegative | None = Field(default=None, description="Age of its last heartbeat, s.")
    uptime_seconds: NotNegative | None = Field(default=None, description="Time since its start, seconds.")
    cpu_percent: NotNegative | None = Field(default=None, description="Processor use, percent of one core.")
    memory_percent: NotNegative | None = Field(default=None, description="Memory use, percent of the machine.")
    memory_used_mb: NotNegative | None = Field(default=None, description="Memory use, MiB.")
    market_data_age_seconds: NotNegative | None = Field(default=None, description="Age of its newest price, seconds.")
    reason: str | None = Field(default=None, description="Why it is not healthy.")


class GetSystemHealthResult(RpcModel):
    """The health of all services."""

    status: HealthLevel = Field(description="Worst of them.")
    services: dict[str, ServiceHealthEntry] = Field(description="Each service by name.")
    timestamp: UtcTime | None = Field(default=None, description="Wall time of the verdict.")


class GetSystemHealthRequest(Question[GetSystemHealthResult]):
    """Ask for the health of all services."""


class TriggerRetrainingResult(RpcModel):
    """Whether the training began."""

    status: Literal["started", "already_running", "refused"] = Field(description="What became of it.")
    job_id: str | None = Field(default=None, description="Training job.")
    reason: str | None = Field(default=None, description="Why it was refused.")


class TriggerRetrainingRequest(Question[TriggerRetrainingResult]):
    """Ask analytics-os to have one model trained again."""

    model_id: Text = Field(description="Id of the model.")
    reason: str = Field(default="", description="Why.")


class GetPortfolioStateResult(RpcModel):
    """The portfolio as analytics-os knows it from events; amounts in USDT."""

    run_id: str | None = Field(default=None, description="Life of the account that it is about.")
    timestamp: UtcTime | None = Field(default=None, description="Market time of the newest event in it.")
    wallet_balance_usd: float | None = Field(
        default=None, description="Wallet balance; unknown before the first report."
    )
    equity_usd: float | None = Field(default=None, description="Wallet balance plus open profit.")
    available_usd: float | None = Field(default=None, description="Free for new positions.")
    realized_pnl_usd: float = Field(description="Profit of all closed quantity, fees and funding not included.")
    unrealized_pnl_usd: float = Field(description="Open profit of all positions.")
    fees_usd: float = Field(description="Fees paid; below 0 for rebates.")
    funding_usd: float = Field(description="Funding received (above 0) or paid.")
    gross_exposure_usd: NotNegative = Field(default=0, description="Long plus short value.")
    net_exposure_usd: float = Field(default=0, description="Long minus short value.")
    drawdown_pct: NotNegative | None = Field(default=None, description="Fall from the day's peak equity, percent.")
    trades_closed: Count = Field(default=0, description="Positions closed so far.")
    trades_won: Count = Field(default=0, description="Those with a profit.")
    positions: tuple[Position, ...] = Field(description="Open positions by symbol.")


class GetPortfolioStateRequest(Question[GetPortfolioStateResult]):
    """Ask for the state of the portfolio."""


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command.

    Attributes:
        service: Service that answers it.
        request_model: Model of the parameters.
        result_model: Model of the result.
        has_effect: True when a second run would do something again; such a command is claimed across all replicas of
            the service before it runs, and its result is stored where each of them finds it.
        urgent: True when it must never be refused because the service is busy.
    """

    service: str
    request_model: type[RpcModel]
    result_model: type[RpcModel]
    has_effect: bool = False
    urgent: bool = False


COMMANDS: Mapping[str, CommandSpec] = MappingProxyType(
    {
        "get_signal": CommandSpec(AI, GetSignalRequest, GetSignalResult),
        "get_top_opportunities": CommandSpec(AI, GetTopOpportunitiesRequest, GetTopOpportunitiesResult),
        "retrain_model": CommandSpec(AI, RetrainModelRequest, RetrainModelResult, has_effect=True),
        "validate_risk": CommandSpec(EXEC_RISK, ValidateRiskRequest, ValidateRiskResult),
        "get_position_status": CommandSpec(EXEC_RISK, GetPositionStatusRequest, GetPositionStatusResult),
        "get_positions": CommandSpec(EXEC_RISK, GetPositionsRequest, GetPositionsResult),
        "emergency_stop": CommandSpec(
            EXEC_RISK, EmergencyStopRequest, EmergencyStopResult, has_effect=True, urgent=True
        ),
        "get_system_health": CommandSpec(ANALYTICS_OS, GetSystemHealthRequest, GetSystemHealthResult),
        "trigger_retraining": CommandSpec(
            ANALYTICS_OS, TriggerRetrainingRequest, TriggerRetrainingResult, has_effect=True
        ),
        "get_portfolio_state": CommandSpec(ANALYTICS_OS, GetPortfolioStateRequest, GetPortfolioStateResult),
    }
)


def commands_by_question(commands: Mapping[str, CommandSpec]) -> Mapping[type[RpcModel], str]:
    """Return which command a question belongs to; one that belongs to several is not among them."""
    names: dict[type[RpcModel], list[str]] = {}
    for command, spec in commands.items():
        names.setdefault(spec.request_model, []).append(command)
    return {question: found[0] for question, found in names.items() if len(found) == 1}
