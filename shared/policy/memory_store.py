"""The policy inside one process, for replay and tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.clock import Clock
from shared.errors import PolicyConflictError
from shared.policy.document import PolicyDocument, audit_row, changed_document, first_document
from shared.trading.policy import FALLBACK_POLICY_STATE, PolicyState, RiskMode


class SharedPolicy:
    """What the stores of one process have in common, as Redis is for those of many."""

    def __init__(self) -> None:
        self.document: PolicyDocument | None = None
        self.audit: list[dict[str, Any]] = []


class MemoryPolicyStore:
    """``PolicyStore`` over a ``SharedPolicy``.

    Attributes:
        name: Component name.
    """

    name = "policy"

    def __init__(self, clock: Clock, shared: SharedPolicy | None = None) -> None:
        self._clock = clock
        self._shared = shared or SharedPolicy()
        self._state = FALLBACK_POLICY_STATE

    async def start(self) -> None:
        if self._shared.document is None:
            self._shared.document = first_document(self._clock.now())
        await self.refresh()

    async def stop(self) -> None:
        """Nothing to release."""

    def current(self) -> PolicyState:
        return self._state

    async def refresh(self) -> PolicyState:
        if self._shared.document is not None:
            self._state = self._shared.document.state()
        return self._state

    async def update(
        self,
        *,
        expected_version: int,
        updated_by: str,
        reason: str,
        mode: RiskMode | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> PolicyState:
        document = self._shared.document or first_document(self._clock.now())
        if document.version != expected_version:
            raise PolicyConflictError(
                f"the policy has version {document.version}, not {expected_version}: read it again and decide again"
            )
        following, changed = changed_document(
            document, now=self._clock.now(), updated_by=updated_by, reason=reason, mode=mode, changes=changes
        )
        self._shared.document = following
        self._shared.audit.append(audit_row(document, following, changed=changed, reason=reason))
        return await self.refresh()
