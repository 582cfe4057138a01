"""Keeps the cached policy fresh."""

from __future__ import annotations

from shared.events.envelope import Event
from shared.events.v3 import PolicyUpdatedPayload
from shared.policy.store import PolicyStore


class PolicyWatcher:
    """Reads the policy again when someone changed it."""

    def __init__(self, policy: PolicyStore) -> None:
        self._policy = policy

    async def on_policy_updated(self, _event: Event[PolicyUpdatedPayload]) -> None:
        """Refresh the cache; the event only says that there is something to read."""
        await self._policy.refresh()
