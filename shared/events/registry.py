"""The table of all event types: payload, source, kind, ordering key, lifetime, and rank when Redis is away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from shared.errors import DecodeError
from shared.events import v3
from shared.events.envelope import EventPayload

AI = "ai-service"
EXEC_RISK = "exec-risk-service"
ANALYTICS_OS = "analytics-os-service"
#: Stands for "every service may publish it".
ANY = "any"


class EventKind(StrEnum):
    """What an event is: something that happened, or something that is asked for."""

    FACT = "FACT"  # never expires
    COMMAND = "COMMAND"  # refused when late, never buffered


class TtlClock(StrEnum):
    """On which clock the lifetime of a command runs."""

    WALL = "WALL"  # plumbing: the age of metadata.timestamp
    MARKET = "MARKET"  # trading: runs as fast as the market does


@dataclass(frozen=True, slots=True)
class EventSpec:
    """All that the machinery must know of one event type.

    Attributes:
        event_type: For example ``signal.generated``.
        payload: Model of the payload.
        source: Services that publish it, or ``("any",)``.
        kind: FACT or COMMAND.
        key_field: Payload field whose value orders deliveries; None when the event belongs to no symbol or service.
        ttl_seconds: Longest lifetime; None for facts, and for RPC, where each call has its own deadline. A
            ``signal.generated`` lives one candle of its timeframe when that is shorter.
        buffer_priority: Rank in the disk buffer, 1 is dropped last (never); None when the event is not buffered.
        ttl_clock: Clock of ``ttl_seconds``.
    """

    event_type: str
    payload: type[EventPayload]
    source: tuple[str, ...]
    kind: EventKind
    key_field: str | None
    ttl_seconds: float | None
    buffer_priority: int | None
    ttl_clock: TtlClock = TtlClock.WALL

    def ordering_key(self, payload: EventPayload) -> str | None:
        """Return the value that deliveries of this event are ordered by, None when there is none."""
        if self.key_field is None:
            return None
        key: str | None = getattr(payload, self.key_field)
        return key


def _fact(
    event_type: str, payload: type[EventPayload], *source: str, key: str | None = None, priority: int
) -> tuple[str, EventSpec]:
    return event_type, EventSpec(event_type, payload, source, EventKind.FACT, key, None, priority)


def _command(
    event_type: str,
    payload: type[EventPayload],
    *source: str,
    key: str | None = None,
    ttl: float | None,
    clock: TtlClock = TtlClock.WALL,
) -> tuple[str, EventSpec]:
    return event_type, EventSpec(event_type, payload, source, EventKind.COMMAND, key, ttl, None, clock)


EVENTS: Mapping[str, EventSpec] = MappingProxyType(
    dict(
        [
            # market and models
            _fact("candle.closed", v3.CandleClosedPayload, AI, key="symbol", priority=3),
            _command("signal.generated", v3.SignalGeneratedPayload, AI, key="symbol", ttl=300, clock=TtlClock.MARKET),
            _fact("rl.decision", v3.RlDecisionPayload, AI, key="symbol", priority=3),
            _fact("model.prediction", v3.ModelPredictionPayload, AI, key="symbol", priority=3),
            _fact("universe.opportunity", v3.UniverseOpportunityPayload, AI, priority=3),
            # orders, positions, account
            _command("execution.request", v3.ExecutionRequestPayload, ANY, key="symbol", ttl=60),
            _fact("order.updated", v3.OrderUpdatedPayload, EXEC_RISK, key="symbol", priority=1),
            _fact("execution.result", v3.ExecutionResultPayload, EXEC_RISK, key="symbol", priority=1),
            _fact("position.opened", v3.PositionOpenedPayload, EXEC_RISK, key="symbol", priority=1),
            _fact("position.updated", v3.PositionUpdatedPayload, EXEC_RISK, key="symbol", priority=1),
            _fact("position.closed", v3.PositionClosedPayload, EXEC_RISK, key="symbol", priority=1),
            _fact("risk.alert", v3.RiskAlertPayload, EXEC_RISK, priority=1),
            _fact("account.updated", v3.AccountUpdatedPayload, EXEC_RISK, priority=1),
            _fact("emergency.stop", v3.EmergencyStopPayload, EXEC_RISK, priority=1),
            _fact("trading_state.changed", v3.TradingStateChangedPayload, EXEC_RISK, priority=1),
            # the system
            _fact("health.status", v3.HealthStatusPayload, ANALYTICS_OS, key="service_name", priority=2),
            _fact("learning.event", v3.LearningEventPayload, ANALYTICS_OS, AI, key="model_id", priority=2),
            _fact("system.alert", v3.SystemAlertPayload, ANALYTICS_OS, key="component", priority=2),
            _command(
                "service.restart_requested",
                v3.ServiceRestartRequestedPayload,
                ANALYTICS_OS,
                key="service_name",
                ttl=30,
            ),
            _command("portfolio.balance", v3.PortfolioBalancePayload, ANALYTICS_OS, ttl=600, clock=TtlClock.MARKET),
            _command("profit.amplification", v3.ProfitAmplificationPayload, ANALYTICS_OS, key="symbol", ttl=60),
            _fact("policy.updated", v3.PolicyUpdatedPayload, ANY, priority=2),
            _fact("system.mode_changed", v3.SystemModeChangedPayload, ANALYTICS_OS, priority=2),
            _fact("service.heartbeat", v3.ServiceHeartbeatPayload, ANY, key="service_name", priority=4),
            _command("rpc.request", v3.RpcRequestPayload, ANY, ttl=None),
            _command("rpc.response", v3.RpcResponsePayload, ANY, ttl=None),
        ]
    )
)


def spec_for(event_type: str) -> EventSpec:
    """Return the entry of ``event_type``.

    Raises:
        DecodeError: There is none.
    """
    try:
        return EVENTS[event_type]
    except KeyError:
        raise DecodeError(f"event type {event_type!r} is not in the catalogue; see docs/events.md") from None
