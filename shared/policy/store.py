"""The port to the policy store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from shared.trading.policy import PolicyState, RiskMode


class PolicyStore(Protocol):
    """One current policy for all services, changed by compare-and-set, with an audit trail."""

    async def start(self) -> None:
        """Load the current policy; create version 1 (mode NORMAL) when the store is empty."""
        ...

    async def stop(self) -> None:
        """Release what start opened."""
        ...

    def current(self) -> PolicyState:
        """Return the cached policy without I/O; stale copy or the built-in DEFENSIVE one when the store is away."""
        ...

    async def refresh(self) -> PolicyState:
        """Read the store again (after ``policy.updated``)."""
        ...

    async def update(
        self,
        *,
        expected_version: int,
        updated_by: str,
        reason: str,
        mode: RiskMode | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> PolicyState:
        """Switch the mode and/or change fields of the active policy, and write the audit trail.

        Raises:
            InvalidInputError: An unknown field or a value out of range.
            PolicyConflictError: ``expected_version`` is not the stored version.
        """
        ...
