"""The ports to the policy: services read it at every decision, operators change it now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shared.policy.changes import PolicyChange, Revision
from shared.policy.document import PolicyDocument
from shared.trading.policy import PolicyState


class PolicyStore(Protocol):
    """One current policy for all services."""

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


class PolicyEditor(PolicyStore, Protocol):
    """What an operator needs: every change is a new version, made by compare-and-set, with a row in the audit trail."""

    def document(self) -> PolicyDocument:
        """Return all modes of what ``current`` is from, without I/O; version 0 when nothing is known."""
        ...

    async def change(self, change: PolicyChange, *, expected_version: int | None = None) -> PolicyDocument:
        """Carry out ``change``; return the version that it made, or the stored one when it holds already.

        Args:
            change: What is wanted, by whom, and why.
            expected_version: The version that the caller decided upon; None for whichever is stored.

        Raises:
            InvalidInputError: An unknown field or a value out of range, or nobody or no reason is named.
            PolicyConflictError: ``expected_version`` is not the stored version.
            ConnectionLostError: The store cannot be reached; the message says when the change may have been made.
            DecodeError: What is stored is damaged; only a change that replaces everything can mend it.
        """
        ...

    async def rollback(
        self, to_version: int, *, updated_by: str, reason: str, expected_version: int | None = None
    ) -> PolicyDocument:
        """Make a new version with mode and values of ``to_version``; see ``change``.

        Raises:
            InvalidInputError: The audit trail does not hold that version.
        """
        ...

    async def history(self, *, limit: int, before: int | None = None) -> Sequence[Revision]:
        """Return up to ``limit`` rows of the audit trail, the newest first; with ``before`` only older versions.

        Raises:
            ConnectionLostError: The store cannot be reached.
        """
        ...
