"""What the exec-risk-service listens to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.exec_risk_service.handlers.emergency_stop import EmergencyStop
from services.exec_risk_service.handlers.order_executor import OrderExecutor
from services.exec_risk_service.handlers.policy_watcher import PolicyWatcher
from services.exec_risk_service.handlers.portfolio_manager import PortfolioManager
from services.exec_risk_service.handlers.position_monitor import PositionMonitor
from services.exec_risk_service.handlers.risk_validator import RiskValidator
from services.exec_risk_service.handlers.signal_source import SignalSource
from services.exec_risk_service.handlers.system_mode import SystemMode
from shared.bus.event_bus import Handler
from shared.rpc.execution import RpcHandler


@dataclass(frozen=True, slots=True)
class Handlers:
    """The handlers of one service instance."""

    order_executor: OrderExecutor
    portfolio_manager: PortfolioManager
    position_monitor: PositionMonitor
    risk_validator: RiskValidator
    policy_watcher: PolicyWatcher
    emergency_stop: EmergencyStop
    signal_source: SignalSource
    system_mode: SystemMode


#: Event pattern -> handler.
EVENT_HANDLERS: Mapping[str, Callable[[Handlers], Handler]] = MappingProxyType(
    {
        "signal.generated": lambda handlers: handlers.order_executor.on_signal,
        "execution.request": lambda handlers: handlers.order_executor.on_execution_request,
        "profit.amplification": lambda handlers: handlers.portfolio_manager.on_amplification,
        "portfolio.balance": lambda handlers: handlers.portfolio_manager.on_balance,
        "candle.closed": lambda handlers: handlers.position_monitor.on_candle,
        "rl.decision": lambda handlers: handlers.position_monitor.on_rl_decision,
        "system.mode_changed": lambda handlers: handlers.system_mode.on_mode_changed,
        "service.heartbeat": lambda handlers: handlers.signal_source.on_heartbeat,
        "policy.updated": lambda handlers: handlers.policy_watcher.on_policy_updated,
    }
)

#: RPC command -> handler.
RPC_HANDLERS: Mapping[str, Callable[[Handlers], RpcHandler]] = MappingProxyType(
    {
        "validate_risk": lambda handlers: handlers.risk_validator.validate_risk,
        "get_position_status": lambda handlers: handlers.position_monitor.get_position_status,
        "emergency_stop": lambda handlers: handlers.emergency_stop.answer,
        "get_positions": lambda handlers: handlers.position_monitor.get_positions,
    }
)
