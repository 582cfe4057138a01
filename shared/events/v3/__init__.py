"""The payloads of schema version 3, one class per event type."""

from shared.events.v3.ai import (
    ModelPredictionPayload,
    Prediction,
    RankedSymbol,
    RlDecisionPayload,
    SignalGeneratedPayload,
    UniverseOpportunityPayload,
)
from shared.events.v3.analytics_os import (
    HealthStatusPayload,
    LearningEventPayload,
    PortfolioAdjustment,
    PortfolioBalancePayload,
    ProfitAmplificationPayload,
    ServiceRestartRequestedPayload,
    SystemAlertPayload,
)
from shared.events.v3.exec_risk import (
    AccountUpdatedPayload,
    EmergencyStopPayload,
    ExecutionRequestPayload,
    ExecutionResultPayload,
    OrderUpdatedPayload,
    PositionClosedPayload,
    PositionOpenedPayload,
    PositionUpdatedPayload,
    RiskAlertPayload,
    TradingStateChangedPayload,
)
from shared.events.v3.market import CandleClosedPayload
from shared.events.v3.system import (
    PolicyUpdatedPayload,
    RpcRequestPayload,
    RpcResponsePayload,
    ServiceHeartbeatPayload,
    SystemModeChangedPayload,
)

__all__ = [
    "AccountUpdatedPayload",
    "CandleClosedPayload",
    "EmergencyStopPayload",
    "ExecutionRequestPayload",
    "ExecutionResultPayload",
    "HealthStatusPayload",
    "LearningEventPayload",
    "ModelPredictionPayload",
    "OrderUpdatedPayload",
    "PolicyUpdatedPayload",
    "PortfolioAdjustment",
    "PortfolioBalancePayload",
    "PositionClosedPayload",
    "PositionOpenedPayload",
    "PositionUpdatedPayload",
    "Prediction",
    "ProfitAmplificationPayload",
    "RankedSymbol",
    "RiskAlertPayload",
    "RlDecisionPayload",
    "RpcRequestPayload",
    "RpcResponsePayload",
    "ServiceHeartbeatPayload",
    "ServiceRestartRequestedPayload",
    "SignalGeneratedPayload",
    "SystemAlertPayload",
    "SystemModeChangedPayload",
    "TradingStateChangedPayload",
    "UniverseOpportunityPayload",
]
