"""What the ai-service listens to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.ai_service.handlers.policy_watcher import PolicyWatcher
from services.ai_service.handlers.signal_generator import SignalGenerator
from shared.bus.event_bus import Handler
from shared.rpc.execution import RpcHandler


@dataclass(frozen=True, slots=True)
class Handlers:
    """The handlers of one service instance."""

    signal_generator: SignalGenerator
    policy_watcher: PolicyWatcher


#: Event pattern -> handler.
EVENT_HANDLERS: Mapping[str, Callable[[Handlers], Handler]] = MappingProxyType(
    {
        "candle.closed": lambda handlers: handlers.signal_generator.on_candle_closed,
        "policy.updated": lambda handlers: handlers.policy_watcher.on_policy_updated,
    }
)

#: RPC command -> handler.
RPC_HANDLERS: Mapping[str, Callable[[Handlers], RpcHandler]] = MappingProxyType(
    {
        "get_signal": lambda handlers: handlers.signal_generator.get_signal,
    }
)
