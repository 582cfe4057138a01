"""The policy in Redis: one key changed by compare-and-set, an audit trail, a cached copy that outlives Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson
import structlog
from redis.exceptions import WatchError

from shared.bus.event_bus import EventBus
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import DecodeError, PolicyConflictError, TransientError
from shared.events.v3 import PolicyUpdatedPayload
from shared.policy.document import PolicyDocument, audit_row, changed_document, first_document, read_document
from shared.policy.snapshot import PolicySnapshot
from shared.redis_connection import RedisConnection, redis_errors
from shared.trading.policy import FALLBACK_POLICY_STATE, PolicyState, RiskMode

log = structlog.get_logger(__name__)

CURRENT_KEY = "quantum:policy:current"
AUDIT_KEY = "quantum:policy:audit"
_AUDIT_LENGTH = 10_000


class RedisPolicyStore:
    """``PolicyStore`` over Redis.

    ``current`` never waits: it answers from the cached copy, which ``policy.updated`` and a timer refresh. While Redis
    is away the copy is marked stale, and whoever may not trade on a stale policy can tell.

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
        refresh_seconds: float = 5.0,
        snapshot_seconds: float = 300.0,
    ) -> None:
        """Prepare, without reading.

        Args:
            connection: To Redis.
            clock: Wall clock.
            snapshot: Copy on disk; None keeps none.
            bus: Where ``policy.updated`` goes; None tells nobody.
            refresh_seconds: Longest time until a change is seen when its event was missed.
            snapshot_seconds: Time between two copies on disk.
        """
        self._connection = connection
        self._clock = clock
        self._snapshot = snapshot
        self._bus = bus
        self._refresh_seconds = refresh_seconds
        self._snapshot_seconds = snapshot_seconds
        self._saved_version: int | None = None
        self._saved_at = 0.0
        self._state = FALLBACK_POLICY_STATE
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._snapshot is not None:
            saved = await asyncio.to_thread(self._snapshot.load)
            self._state = saved.state(stale=True) if saved else self._state
        with suppress(TransientError), redis_errors():
            await self._connection.client.set(CURRENT_KEY, first_document(self._clock.now()).model_dump_json(), nx=True)
        await self.refresh()
        self._task = asyncio.create_task(self._keep_fresh(), name="policy-refresh")

    async def stop(self) -> None:
        if self._task is not None:
            await end_task(self._task)
            self._task = None

    def current(self) -> PolicyState:
        return self._state

    async def refresh(self) -> PolicyState:
        try:
            with redis_errors():
                raw = await self._connection.client.get(CURRENT_KEY)
            if raw is None:
                raise DecodeError(f"{CURRENT_KEY} is empty in Redis")
            await self._take(read_document(raw))
        except (TransientError, DecodeError) as error:
            if not self._state.stale:
                log.warning("policy_is_stale", version=self._state.version, error=str(error))
            self._state = PolicyState(self._state.mode, self._state.policy, self._state.version, stale=True)
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
        before, after, changed = await self._compare_and_set(expected_version, updated_by, reason, mode, changes)
        await self._take(after)
        log.info("policy_changed", version=after.version, by=updated_by, reason=reason, changed=list(changed))
        await self._announce(before, after, changed)
        return self._state

    async def _compare_and_set(
        self,
        expected_version: int,
        updated_by: str,
        reason: str,
        mode: RiskMode | None,
        changes: Mapping[str, Any] | None,
    ) -> tuple[PolicyDocument, PolicyDocument, tuple[str, ...]]:
        try:
            with redis_errors():
                async with self._connection.client.pipeline(transaction=True) as pipe:
                    await pipe.watch(CURRENT_KEY)
                    raw = await pipe.get(CURRENT_KEY)
                    before = read_document(raw) if raw else first_document(self._clock.now())
                    if before.version != expected_version:
                        raise _conflict(before.version, expected_version)
                    after, changed = changed_document(
                        before,
                        now=self._clock.now(),
                        updated_by=updated_by,
                        reason=reason,
                        mode=mode,
                        changes=changes,
                    )
                    pipe.multi()  # type: ignore[no-untyped-call]  # redis-py gives it no types
                    pipe.set(CURRENT_KEY, after.model_dump_json())
                    pipe.lpush(AUDIT_KEY, orjson.dumps(audit_row(before, after, changed=changed, reason=reason)))
                    pipe.ltrim(AUDIT_KEY, 0, _AUDIT_LENGTH - 1)
                    await pipe.execute()
        except TransientError as error:
            if isinstance(error.__cause__, WatchError):
                raise _conflict(expected_version + 1, expected_version) from error
            raise
        return before, after, changed

    async def _announce(self, before: PolicyDocument, after: PolicyDocument, changed: tuple[str, ...]) -> None:
        if self._bus is None:
            return
        payload = PolicyUpdatedPayload(
            previous_mode=before.active_mode.value,
            new_mode=after.active_mode.value,
            updated_by=after.updated_by,
            changed_fields=changed,
            effective_timestamp=after.last_updated,
            version=after.version,
        )
        try:
            await self._bus.publish("policy.updated", payload)
        except TransientError as error:
            # The change is stored: to report a failure would invite a second one. The others' timers will find it.
            log.warning("policy_change_not_announced", version=after.version, error=str(error))

    async def _take(self, document: PolicyDocument) -> None:
        """Make ``document`` the cached copy, and keep it on disk when it is new or the copy there is old."""
        self._state = document.state()
        now = self._clock.monotonic()
        is_new = document.version != self._saved_version
        if self._snapshot is None or not (is_new or now - self._saved_at >= self._snapshot_seconds):
            return
        self._saved_version, self._saved_at = document.version, now
        await asyncio.to_thread(self._snapshot.save, document)

    async def _keep_fresh(self) -> None:
        while True:
            await self._clock.sleep(self._refresh_seconds)
            await self.refresh()


def _conflict(stored: int, expected: int) -> PolicyConflictError:
    return PolicyConflictError(f"the policy has version {stored}, not {expected}: read it again and decide again")
