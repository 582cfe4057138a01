"""Events of the analytics-os-service: health, learning, alerts, and the shape of the portfolio."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.events.envelope import EventPayload
from shared.events.fields import Count, NotNegative, Score, Symbol, Text, UtcTime

HealthLevel = Literal["HEALTHY", "DEGRADED", "CRITICAL", "UNKNOWN"]
LearningEventType = Literal[
    "DRIFT_DETECTED",
    "RETRAINING_STARTED",
    "RETRAINING_PROGRESS",
    "RETRAINING_COMPLETED",
    "MODEL_UPDATED",
    "MODEL_REJECTED",
    "MODEL_ROLLED_BACK",
]
SystemAlertType = Literal[
    "PERFORMANCE_DEGRADED", "MEMORY_HIGH", "CPU_HIGH", "REDIS_ERROR", "DATABASE_ERROR", "API_ERROR"
]
SystemAlertSeverity = Literal["INFO", "WARNING", "ERROR", "CRITICAL"]
BalanceAction = Literal["REBALANCE_REQUIRED", "REBALANCE_COMPLETED", "EXPOSURE_WARNING"]
AmplificationAction = Literal["AMPLIFY_POSITION", "ADD_TO_WINNER", "CUT_LOSER"]


class HealthStatusPayload(EventPayload):
    """What analytics-os thinks of one service."""

    service_name: Text = Field(description="Service it is about.")
    status: HealthLevel = Field(description="Verdict.")
    cpu_percent: NotNegative | None = Field(default=None, description="Processor use, percent of one core.")
    memory_percent: NotNegative | None = Field(default=None, description="Memory use, percent of the machine.")
    memory_used_mb: NotNegative | None = Field(default=None, description="Memory use, MiB.")
    uptime_seconds: NotNegative | None = Field(default=None, description="Time since its start, seconds.")
    redis_healthy: bool = Field(default=True, description="Whether Redis answers it.")
    postgres_healthy: bool = Field(default=True, description="Whether PostgreSQL answers it.")
    binance_healthy: bool = Field(default=True, description="Whether the exchange answers it.")
    modules: dict[str, str] = Field(default_factory=dict, description="Status of each module by name.")
    degradation_reason: str | None = Field(default=None, description="Why it is not healthy.")
    recovery_action: str | None = Field(default=None, description="What is done about it.")


class LearningEventPayload(EventPayload):
    """One step in the life of a model."""

    event_type: LearningEventType = Field(description="Which step.")
    model_id: Text = Field(description="Id of the model.")
    model_type: Text = Field(description="Family of the model.")
    drift_score: NotNegative | None = Field(default=None, description="Measured drift.")
    drift_threshold: NotNegative | None = Field(default=None, description="Drift that triggers retraining.")
    training_samples: Count | None = Field(default=None, description="Rows it was trained on.")
    training_duration_seconds: NotNegative | None = Field(default=None, description="Time the training took, seconds.")
    new_model_accuracy: Score | None = Field(default=None, description="Accuracy of the new model, 0 to 1.")
    old_model_accuracy: Score | None = Field(default=None, description="Accuracy of the old model on the same data.")
    model_version_before: str | None = Field(default=None, description="Version before.")
    model_version_after: str | None = Field(default=None, description="Version after.")
    deployment_timestamp: UtcTime | None = Field(default=None, description="When the new version took over.")
    job_id: str | None = Field(default=None, description="Training job.")
    progress_pct: float | None = Field(default=None, ge=0, le=100, description="Done so far, percent.")
    stage: str | None = Field(default=None, description="What the job is doing, or the model's stage.")


class SystemAlertPayload(EventPayload):
    """Something in the plumbing needs attention."""

    alert_type: SystemAlertType = Field(description="Kind of trouble.")
    severity: SystemAlertSeverity = Field(description="How bad.")
    message: Text = Field(description="One line for a person.")
    component: Text = Field(description="Service or part it is about.")
    metric_name: str | None = Field(default=None, description="Figure that is out of bounds.")
    metric_value: float | None = Field(default=None, description="Its value.")
    threshold_value: float | None = Field(default=None, description="Its bound.")
    recovery_action: str | None = Field(default=None, description="What is done about it.")
    auto_recovery_attempted: bool = Field(default=False, description="Whether self-healing tried.")


class ServiceRestartRequestedPayload(EventPayload):
    """Ask the supervisor to restart one service."""

    service_name: Text = Field(description="Service to restart.")
    reason: Text = Field(description="Why.")
    requested_by: Text = Field(description="Who asks.")
    deadline_seconds: NotNegative = Field(description="Time it has to stop by itself, seconds.")


class PortfolioAdjustment(BaseModel):
    """One change that would bring the portfolio back into balance."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    symbol: Symbol = Field(description="Venue symbol.")
    delta_usd: float = Field(description="Change of the position's value, USDT; below 0 reduces.")
    reason: str = Field(default="", description="Why.")


class PortfolioBalancePayload(EventPayload):
    """How the portfolio should be, or was, rebalanced."""

    action: BalanceAction = Field(description="What is asked for or was done.")
    total_exposure_usd: float = Field(description="Value of all positions, USDT.")
    max_allowed_exposure_usd: float = Field(description="Its limit, USDT.")
    position_count: Count = Field(description="Open positions.")
    max_positions: Count = Field(description="Their limit.")
    sector_exposure: dict[str, float] = Field(default_factory=dict, description="USDT by sector.")
    asset_allocation: dict[str, float] = Field(default_factory=dict, description="USDT by asset.")
    symbols_to_reduce: tuple[str, ...] | None = Field(default=None, description="Venue symbols with too much.")
    symbols_to_increase: tuple[str, ...] | None = Field(default=None, description="Venue symbols with too little.")
    adjustments: tuple[PortfolioAdjustment, ...] = Field(default=(), description="Changes, largest first.")


class ProfitAmplificationPayload(EventPayload):
    """Ask to add to a winner or to cut a loser."""

    symbol: Symbol = Field(description="Venue symbol.")
    action: AmplificationAction = Field(description="What to do.")
    current_pnl_pct: float = Field(description="Open profit, percent.")
    amplification_factor: float = Field(ge=1, le=3, description="Multiple of the present size, 1 to 3.")
    additional_size_usd: NotNegative | None = Field(default=None, description="Size to add, USDT.")
    risk_adjusted: bool = Field(default=True, description="Whether the size is already scaled for risk.")
    max_total_size_usd: NotNegative | None = Field(default=None, description="Largest size afterwards, USDT.")
