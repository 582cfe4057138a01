"""What exec-risk listens to: events of the bus and commands of RPC, with the handler of each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from services.exec_risk_service.handlers.order_executor import OrderExecutor
from services.exec_risk_service.handlers.position_monitor import PositionMonitor
from services.exec_risk_service.handlers.risk_validator import RiskValidator
from shared.bus.event_bus import Handler
from shared.rpc.server import RpcHandler


def event_handlers(executor: OrderExecutor, monitor: PositionMonitor) -> Mapping[str, Handler]:
    """Return event pattern -> handler."""
    return MappingProxyType({"signal.generated": executor.on_signal, "candle.closed": monitor.on_candle})


def rpc_handlers(validator: RiskValidator, monitor: PositionMonitor) -> Mapping[str, RpcHandler]:
    """Return command -> handler."""
    return MappingProxyType(
        {
            "validate_risk": validator.validate_risk,
            "get_position_status": monitor.get_position_status,
            "get_positions": monitor.get_positions,
        }
    )
