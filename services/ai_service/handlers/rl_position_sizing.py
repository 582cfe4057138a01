"""Decides the size of a position and says why, in ``rl.decision``."""

from __future__ import annotations

from services.ai_service.domain.ensemble import EnsembleForecast
from services.ai_service.domain.signals import Decision, SignalRule, decide
from services.ai_service.domain.sizing import SizingRule
from shared.bus.event_bus import EventBus
from shared.events.v3.ai import RlDecisionPayload
from shared.policy.store import PolicyStore

#: The sizing rule in use: Kelly, without a learned agent.
AGENT_VERSION = "kelly-1"


class RlPositionSizing:
    """Turns a forecast into a sized decision under the policy in force."""

    def __init__(self, bus: EventBus, policy: PolicyStore, rule: SignalRule, sizing: SizingRule) -> None:
        self._bus = bus
        self._policy = policy
        self._rule = rule
        self._sizing = sizing

    def decide(self, joint: EnsembleForecast, *, on_trial: bool) -> Decision:
        """Return what to do about ``joint``; see ``domain.signals.decide``."""
        policy = self._policy.current().policy
        return decide(joint.forecast, self._rule, self._sizing, policy, on_trial=on_trial)

    async def explain(self, symbol: str, signal_id: str, event_id: str, joint: EnsembleForecast, why: Decision) -> None:
        """Publish the reasoning behind the size of a BUY or SELL; a HOLD has none."""
        if why.bet is None:
            return
        await self._bus.publish(
            "rl.decision",
            RlDecisionPayload(
                decision_type="position_sizing",
                symbol=symbol,
                signal_id=signal_id,
                recommended_size_usd=why.bet.size_usd,
                recommended_leverage=why.bet.leverage,
                kelly_fraction=why.bet.kelly_fraction,
                take_profit_pct=why.exit_pct,
                stop_loss_pct=why.exit_pct,
                rl_agent_version=AGENT_VERSION,
                state_features={
                    "p_up": joint.forecast.p_up,
                    "strength": joint.forecast.strength,
                    "expected_return_pct": joint.forecast.expected_return_pct,
                    "net_return_pct": why.net_return_pct,
                },
                metadata={"limited_by": why.bet.limited_by},
            ),
            event_id=event_id,
        )
