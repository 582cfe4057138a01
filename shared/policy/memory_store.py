"""The policy inside one process, for replay and tests."""

from __future__ import annotations

from collections.abc import Sequence

from shared.clock import Clock
from shared.errors import InvalidInputError
from shared.policy.changes import PolicyChange, Revision, apply_change, require_version, revision_of, rollback
from shared.policy.document import BUILT_IN, PolicyDocument, first_document
from shared.trading.policy import FALLBACK_POLICY_STATE, PolicyState


class SharedPolicy:
    """What the stores of one process have in common, as Redis is for those of many.

    Attributes:
        versions: Every version there was, the current one last; empty before the first start.
    """

    def __init__(self) -> None:
        self.versions: list[PolicyDocument] = []


class MemoryPolicyStore:
    """``PolicyEditor`` over a ``SharedPolicy``.

    Attributes:
        name: Component name.
    """

    name = "policy"

    def __init__(self, clock: Clock, shared: SharedPolicy | None = None) -> None:
        self._clock = clock
        self._shared = shared or SharedPolicy()
        self._document = BUILT_IN
        self._state = FALLBACK_POLICY_STATE

    async def start(self) -> None:
        if not self._shared.versions:
            self._shared.versions.append(first_document(self._clock.now()))
        await self.refresh()

    async def stop(self) -> None:
        """Nothing to release."""

    def current(self) -> PolicyState:
        return self._state

    def document(self) -> PolicyDocument:
        return self._document

    async def refresh(self) -> PolicyState:
        if self._shared.versions:
            self._document = self._shared.versions[-1]
            self._state = self._document.state()
        return self._state

    async def change(self, change: PolicyChange, *, expected_version: int | None = None) -> PolicyDocument:
        before = self._shared.versions[-1]
        require_version(before, expected_version)
        after = apply_change(before, change, now=self._clock.now())
        if after is not None:
            self._shared.versions.append(after)
        await self.refresh()
        return self._document

    async def rollback(
        self, to_version: int, *, updated_by: str, reason: str, expected_version: int | None = None
    ) -> PolicyDocument:
        old = next((document for document in self._shared.versions if document.version == to_version), None)
        if old is None:
            known = f"{self._shared.versions[0].version} to {self._shared.versions[-1].version}"
            raise InvalidInputError(f"version {to_version} is not in the audit trail, which holds {known}")
        return await self.change(rollback(old, updated_by=updated_by, reason=reason), expected_version=expected_version)

    async def history(self, *, limit: int, before: int | None = None) -> Sequence[Revision]:
        rows = [revision_of(document) for document in reversed(self._shared.versions)]
        return [row for row in rows if before is None or row.version < before][:limit]
