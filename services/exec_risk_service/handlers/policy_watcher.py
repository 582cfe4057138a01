"""Keeps the cached policy fresh."""

from __future__ import annotations

from typing import Any

from shared.events.envelope import Event
from shared.policy.store import PolicyStore
from shared.telemetry.trading_log import trading_log


class PolicyWatcher:
    """Reads the policy again when someone changed it."""

    def __init__(self, policy: PolicyStore) -> None:
        self._policy = policy

    async def on_policy_updated(self, event: Event[Any]) -> None:
        """Refresh the cache; the event only says that there is something to read."""
        state = await self._policy.refresh()
        trading_log.policy_changed(
            version=state.version,
            mode=state.mode.value,
            updated_by=event.payload.updated_by,
            changed_fields=event.payload.changed_fields,
        )
