"""Leases in memory, for tests: the same rules as the real ones, gone with the process."""

from __future__ import annotations

from services.exec_risk_service.adapters.memory_journal import MemoryStore
from services.exec_risk_service.domain.lease import NOBODY, LeaseRecord
from shared.clock import Clock


class MemoryLeases:
    """``LeaseStore`` over a ``MemoryStore``."""

    def __init__(self, store: MemoryStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def read(self, account: str) -> LeaseRecord:
        stored = self._store.account(account)
        overdue = self._clock.monotonic() - stored.lease_expires_at
        return LeaseRecord(stored.epoch, stored.lease_holder, stored.lease_version, overdue)

    async def take(self, account: str, holder: str, *, seen_version: int, seconds: float) -> int | None:
        stored = self._store.account(account)
        if stored.lease_version != seen_version:
            return None
        stored.epoch += 1
        stored.lease_holder = holder
        self._extend(account, seconds)
        return stored.epoch

    async def renew(self, account: str, holder: str, *, seconds: float) -> bool:
        if self._store.account(account).lease_holder != holder:
            return False
        self._extend(account, seconds)
        return True

    async def release(self, account: str, holder: str) -> None:
        stored = self._store.account(account)
        if stored.lease_holder == holder:
            stored.lease_holder = NOBODY
            self._extend(account, 0.0)

    def _extend(self, account: str, seconds: float) -> None:
        stored = self._store.account(account)
        stored.lease_version += 1
        stored.lease_expires_at = self._clock.monotonic() + seconds
