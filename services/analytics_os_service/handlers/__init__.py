"""What analytics-os listens to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.analytics_os_service.domain.portfolio import PORTFOLIO_FACTS
from services.analytics_os_service.handlers.event_archivist import EventArchivist
from services.analytics_os_service.handlers.health_monitor import HealthMonitor
from services.analytics_os_service.handlers.hfos_orchestrator import HfosOrchestrator
from services.analytics_os_service.handlers.policy_watcher import PolicyWatcher
from services.analytics_os_service.handlers.portfolio_keeper import PortfolioKeeper
from shared.bus.event_bus import Handler
from shared.rpc.execution import RpcHandler


@dataclass(frozen=True, slots=True)
class Handlers:
    """The handlers of one service instance."""

    archivist: EventArchivist
    health_monitor: HealthMonitor
    portfolio_keeper: PortfolioKeeper
    hfos_orchestrator: HfosOrchestrator
    policy_watcher: PolicyWatcher


#: Event pattern -> handler, in the order in which they see an event: signs of life first, so that an archive which
#: is away makes nobody look dead; then the archive, so that the portfolio never knows more than it; then who judges
#: the portfolio.
EVENT_HANDLERS: tuple[tuple[str, Callable[[Handlers], Handler]], ...] = (
    ("service.heartbeat", lambda handlers: handlers.health_monitor.on_heartbeat),
    ("*", lambda handlers: handlers.archivist.on_event),
    *((fact, lambda handlers: handlers.portfolio_keeper.on_fact) for fact in PORTFOLIO_FACTS),
    ("position.opened", lambda handlers: handlers.hfos_orchestrator.on_position_opened),
    ("policy.updated", lambda handlers: handlers.policy_watcher.on_policy_updated),
)

#: RPC command -> handler.
RPC_HANDLERS: Mapping[str, Callable[[Handlers], RpcHandler]] = MappingProxyType(
    {
        "get_system_health": lambda handlers: handlers.health_monitor.get_system_health,
        "get_portfolio_state": lambda handlers: handlers.portfolio_keeper.get_portfolio_state,
    }
)
