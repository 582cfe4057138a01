"""The policy in Redis: one key changed by compare-and-set, an audit trail, a cached copy that outlives Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import structlog

from shared.bus.event_bus import EventBus
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import DecodeError, PolicyConflictError, TransientError
from shared.policy.audit_trail import AUDIT_KEY, RedisAuditTrail
from shared.policy.changes import (
    PolicyChange,
    Revision,
    announcement,
    apply_change,
    require_version,
    revision_of,
    rollback,
)
from shared.policy.document import BUILT_IN, PolicyDocument, first_document, read_document
from shared.policy.redis_cell import RedisCell
from shared.policy.snapshot import PolicySnapshot
from shared.redis_connection import RedisConnection
from shared.telemetry.metrics import Metrics, PolicySource
from shared.trading.policy import FALLBACK_POLICY_STATE, PolicyState

__all__ = ["AUDIT_KEY", "CURRENT_KEY", "RedisPolicyStore"]

log = structlog.get_logger(__name__)

CURRENT_KEY = "quantum:policy:current"
#: How long ``stop`` waits for a disk that is slow.
_LAST_SAVE_SECONDS = 2.0


class RedisPolicyStore:
    """``PolicyEditor`` over Redis.

    ``current`` never waits: it answers from the cached copy. A change reaches that copy at once in the process that
    made it, by ``policy.updated`` in the others, and at the latest by the next look at Redis, so that a writer which
    dies before it can announce its change leaves nobody behind. While Redis is away, hangs, or holds something
    that is no policy, the copy is marked stale, and whoever may not trade on a stale policy can tell.

    The stored document carries the note of its own change, so policy and audit row are written in one step; the trail
    is brought up to date right after, and where a writer died in between by the next start, change or look at it.

    A Redis that lost its data, or a failover that lost the latest versions, is given back what this process has seen
    there: limits that a person has tightened do not loosen by themselves.

    Attributes:
        name: Component name.
    """

    name = "policy"

    def __init__(
        self,
        connection: RedisConnection,
        *,
        clock: Clock,
        snapshot: PolicySnapshot | None = None,
        bus: EventBus | None = None,
        metrics: Metrics | None = None,
        refresh_seconds: float = 0.5,
        stale_after_seconds: float = 5.0,
        snapshot_seconds: float = 300.0,
    ) -> None:
        """Prepare, without reading.

        Args:
            connection: To Redis.
            clock: Wall clock.
            snapshot: Copy on disk; None keeps none.
            bus: Where ``policy.updated`` goes; None for who never changes the policy.
            metrics: Figures of the process.
            refresh_seconds: Longest time until a change is seen when its event was missed.
            stale_after_seconds: Age of the last good look at Redis from which on the copy is stale; for a Redis that
                hangs, because one that refuses is noticed at once.
            snapshot_seconds: Time between two copies on disk of a policy that does not change.
        """
        self._cell = RedisCell(connection, CURRENT_KEY)
        self._trail = RedisAuditTrail(connection)
        self._clock = clock
        self._snapshot = snapshot
        self._bus = bus
        self._metrics = metrics
        self._refresh_seconds = refresh_seconds
        self._stale_after_seconds = stale_after_seconds
        self._snapshot_seconds = snapshot_seconds
        self._document = BUILT_IN
        self._state = FALLBACK_POLICY_STATE
        self._why_stale: str | None = "nothing was read yet"
        #: The bytes of the cached copy as Redis had them; None as long as this process has read none there.
        self._seen: bytes | None = None
        self._seen_at = 0.0
        self._saved_at = 0.0
        self._saving: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._snapshot is not None:
            saved = await asyncio.to_thread(self._snapshot.load)
            if saved is not None:
                self._document, self._state = saved, saved.state(stale=True)
        await self.refresh()
        await self._bring_trail_up_to_date()
        self._refreshing = asyncio.create_task(self._keep_fresh(), name="policy-refresh")

    async def stop(self) -> None:
        if self._refreshing is not None:
            await end_task(self._refreshing)
            self._refreshing = None
        if self._saving is not None:
            await asyncio.wait({self._saving}, timeout=_LAST_SAVE_SECONDS)

    # -- reading ------------------------------------------------------------------------------------------------------

    def current(self) -> PolicyState:
        if not self._state.stale and self._clock.monotonic() - self._seen_at > self._stale_after_seconds:
            self._doubt(f"Redis has not answered for {self._stale_after_seconds:g} s")
        if self._metrics is not None:
            self._metrics.policy_read(self._source)
        return self._state

    def document(self) -> PolicyDocument:
        return self._document

    @property
    def why_stale(self) -> str | None:
        """Why ``current`` is stale; None when it is not."""
        return self._why_stale if self._state.stale else None

    @property
    def _source(self) -> PolicySource:
        if self._seen is not None:
            return "cache"
        return "builtin" if self._document is BUILT_IN else "snapshot"

    async def refresh(self) -> PolicyState:
        try:
            began = self._clock.monotonic()
            stored = await self._cell.read()
            if self._metrics is not None:
                self._metrics.policy_read("redis", self._clock.monotonic() - began)
            if stored is None or stored != self._seen:
                stored = await self._put_back_if_lost(stored)
            self._take(stored)
        except (TransientError, DecodeError) as error:
            self._doubt(str(error))
        return self._state

    def _take(self, stored: bytes) -> None:
        """Make what Redis holds the cached copy."""
        if stored != self._seen:
            document = read_document(stored)
            log.info("policy_in_force", version=document.version, mode=document.active_mode.value)
            self._document, self._state, self._seen = document, document.state(), stored
            self._save_soon()
            if self._metrics is not None:
                self._metrics.policy_mode(document.active_mode.value)
        elif self._state.stale:
            log.info("policy_is_fresh_again", version=self._document.version)
            self._state = self._document.state()
        self._seen_at = self._clock.monotonic()

    def _doubt(self, why: str) -> None:
        self._why_stale = why
        if not self._state.stale:
            log.warning("policy_is_stale", version=self._document.version, error=why)
            self._state = self._document.state(stale=True)

    async def _put_back_if_lost(self, stored: bytes | None) -> bytes:
        """Return what Redis holds after it was given back what it may have lost."""
        if not self._is_behind(stored):
            assert stored is not None
            return stored

        async def decide(found: bytes | None) -> bytes | None:
            return self._to_put_back() if self._is_behind(found) else None

        now_stored = await self._cell.change(decide)
        assert now_stored is not None
        if self._document.version > 1:
            log.error("policy_put_back_into_redis", version=read_document(now_stored).version)
        return now_stored

    def _is_behind(self, stored: bytes | None) -> bool:
        """Tell whether Redis holds less than it once did.

        A copy from the disk proves nothing against a policy in Redis: it may be that of another installation.
        """
        if stored is None:
            return True
        return self._seen is not None and read_document(stored).version < self._document.version

    def _to_put_back(self) -> bytes:
        if self._seen is not None:
            return self._seen
        known = self._document if self._document is not BUILT_IN else first_document(self._clock.now())
        return known.to_bytes()

    async def _keep_fresh(self) -> None:
        while True:
            await self._clock.sleep(self._refresh_seconds)
            await self.refresh()
            if self._clock.monotonic() - self._saved_at >= self._snapshot_seconds:
                self._save_soon()

    # -- changing -----------------------------------------------------------------------------------------------------

    async def change(self, change: PolicyChange, *, expected_version: int | None = None) -> PolicyDocument:
        began = self._clock.monotonic()
        outcome: Literal["stored", "conflict", "failed"] = "failed"
        try:
            document = await self._change(change, expected_version)
            outcome = "stored"
        except PolicyConflictError:
            outcome = "conflict"
            raise
        finally:
            if self._metrics is not None:
                self._metrics.policy_written(outcome, self._clock.monotonic() - began)
        return document

    async def _change(self, change: PolicyChange, expected_version: int | None) -> PolicyDocument:
        made: PolicyDocument | None = None

        async def decide(stored: bytes | None) -> bytes | None:
            nonlocal made
            before, is_damaged = await self._base_of(change, stored)
            require_version(before, expected_version)
            made = apply_change(before, change, now=self._clock.now(), always=is_damaged)
            if made is None:
                return None
            # What the stored document tells of itself is overwritten in a moment.
            await self._trail.record(before)
            return made.to_bytes()

        stored = await self._cell.change(decide)
        assert stored is not None
        self._take(stored)
        if made is None:
            return self._document
        log.info("policy_changed", **revision_of(made).as_json())
        await self._announce(made)
        await self._bring_trail_up_to_date()
        return made

    async def rollback(
        self, to_version: int, *, updated_by: str, reason: str, expected_version: int | None = None
    ) -> PolicyDocument:
        await self._bring_trail_up_to_date()
        old = await self._trail.document(to_version)
        return await self.change(rollback(old, updated_by=updated_by, reason=reason), expected_version=expected_version)

    async def history(self, *, limit: int, before: int | None = None) -> Sequence[Revision]:
        await self._bring_trail_up_to_date()
        return await self._trail.page(limit=limit, before=before)

    async def _base_of(self, change: PolicyChange, stored: bytes | None) -> tuple[PolicyDocument, bool]:
        """Return the version that ``change`` builds on, and whether what is stored is no policy."""
        try:
            if stored is None or self._is_behind(stored):
                return read_document(self._to_put_back()), False
            return read_document(stored), False
        except DecodeError as error:
            if not change.is_complete:
                raise DecodeError(
                    f"{error}; bring back an earlier version, or the defaults of every mode", raw=stored
                ) from None
            return await self._trail.newest() or read_document(self._to_put_back()), True

    async def _announce(self, document: PolicyDocument) -> None:
        if self._bus is None:
            return
        try:
            await self._bus.publish("policy.updated", announcement(document))
        except TransientError as error:
            # The change is stored: to report a failure would invite a second one. The others look for themselves.
            log.warning("policy_change_not_announced", version=document.version, error=str(error))

    async def _bring_trail_up_to_date(self) -> None:
        if self._seen is None:
            return
        try:
            await self._trail.record(self._document)
        except TransientError as error:
            log.warning("policy_audit_row_is_late", version=self._document.version, error=str(error))

    # -- the copy on disk ---------------------------------------------------------------------------------------------

    def _save_soon(self) -> None:
        self._saved_at = self._clock.monotonic()
        if self._snapshot is not None and self._saving is None and self._seen is not None:
            self._saving = asyncio.create_task(self._save(self._snapshot), name="policy-snapshot")

    async def _save(self, snapshot: PolicySnapshot) -> None:
        """Write the cached copy, and again when it changed meanwhile; a disk that stalls delays nothing else."""
        try:
            saved = None
            while saved is not self._document:
                saved = self._document
                await asyncio.to_thread(snapshot.save, saved)
        finally:
            self._saving = None
