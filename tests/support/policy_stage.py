"""Policy stores on a real Redis, each closed at the end, and a bus that remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from shared.bus.event_bus import Handler
from shared.clock import Clock, SystemClock
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.policy.changes import PolicyChange
from shared.policy.document import PolicyDocument, read_document
from shared.policy.redis_store import AUDIT_KEY, CURRENT_KEY, RedisPolicyStore
from shared.redis_connection import RedisConnection
from shared.trading.policy import RiskMode

#: A port that nobody listens on.
NOBODY = "redis://127.0.0.1:1/0"


def wish(
    mode: RiskMode | None = None, *, of: RiskMode = RiskMode.NORMAL, by: str = "ann", why: str = "test", **values: Any
) -> PolicyChange:
    """Return a change: a switch to ``mode``, or new values of one mode, or both."""
    wanted: Mapping[RiskMode, Mapping[str, Any]] = {of: values} if values else {}
    return PolicyChange(updated_by=by, reason=why, active_mode=mode, values=wanted)


@dataclass
class PolicyStage:
    """One Redis and the stores on it."""

    connection: RedisConnection
    stores: list[RedisPolicyStore] = field(default_factory=list)

    async def store(self, *, clock: Clock | None = None, started: bool = True, **options: Any) -> RedisPolicyStore:
        """Return a store of its own, as another process would have one."""
        store = RedisPolicyStore(self.connection, clock=clock or SystemClock(), **options)
        self.stores.append(store)
        if started:
            await store.start()
        return store

    async def stored(self) -> PolicyDocument:
        """Return what Redis holds."""
        return read_document(await self.raw())

    async def raw(self) -> bytes:
        """Return the bytes that Redis holds."""
        (raw,) = await self.connection.execute(("GET", CURRENT_KEY))
        return bytes(raw)

    async def put(self, document: PolicyDocument | bytes) -> None:
        """Write what Redis holds, past every store."""
        raw = document if isinstance(document, bytes) else document.to_bytes()
        await self.connection.client.set(CURRENT_KEY, raw)

    async def trail(self) -> list[dict[str, Any]]:
        """Return the rows of the audit trail as anybody with redis-cli sees them, the oldest first."""
        rows = await self.connection.execute(("XRANGE", AUDIT_KEY, "-", "+"))
        return [orjson.loads(dict(zip(row[1][::2], row[1][1::2], strict=True))[b"change"]) for row in rows[0]]


@asynccontextmanager
async def policy_stage(redis_url: str) -> AsyncIterator[PolicyStage]:
    """Connect; at the end stop every store."""
    connection = RedisConnection(redis_url, clock=SystemClock())
    stage = PolicyStage(connection)
    try:
        yield stage
    finally:
        for store in stage.stores:
            await store.stop()
        await connection.stop()


class RecordingBus:
    """Keeps what is published, or fails to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.published: list[tuple[str, Any]] = []
        self._failure = failure

    async def publish(self, event_type: str, payload: EventPayload, **_: str | None) -> Event[Any]:
        if self._failure:
            raise self._failure
        self.published.append((event_type, payload))
        metadata = EventMetadata("1", event_type, "1", None, SystemClock().now(), "test", 1)
        return Event(metadata, payload)

    def subscribe(self, pattern: str, handler: Handler) -> None:
        """Nobody is told."""

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""
