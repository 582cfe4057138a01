"""The policy while Redis comes and goes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.bus.event_bus import Handler
from shared.clock import ManualClock, SystemClock
from shared.errors import ConnectionLostError
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.policy.document import first_document
from shared.policy.redis_store import AUDIT_KEY, CURRENT_KEY, RedisPolicyStore
from shared.policy.snapshot import PolicySnapshot
from shared.redis_connection import RedisConnection
from shared.trading.policy import FALLBACK_POLICY_STATE, RiskMode
from tests.support.eventually import eventually

NOBODY = "redis://127.0.0.1:1/0"


async def test_without_redis_and_without_snapshot_the_careful_policy_holds() -> None:
    connection = RedisConnection(NOBODY, clock=SystemClock())
    store = RedisPolicyStore(connection, clock=SystemClock())
    await store.start()

    assert store.current() == FALLBACK_POLICY_STATE
    await store.stop()
    await connection.stop()


async def test_without_redis_the_snapshot_holds_and_is_marked_stale(tmp_path: Path) -> None:
    snapshot = PolicySnapshot(tmp_path / "policy.json")
    snapshot.save(first_document(SystemClock().now()))
    connection = RedisConnection(NOBODY, clock=SystemClock())
    store = RedisPolicyStore(connection, clock=SystemClock(), snapshot=snapshot)
    await store.start()

    state = store.current()
    assert (state.mode, state.version, state.stale) == (RiskMode.NORMAL, 1, True)
    await store.stop()
    await connection.stop()


async def test_a_damaged_policy_keeps_the_last_good_one_and_marks_it(redis_url: str) -> None:
    connection = RedisConnection(redis_url, clock=SystemClock())
    store = RedisPolicyStore(connection, clock=SystemClock())
    await store.start()
    await connection.client.set(CURRENT_KEY, b'{"active_mode": "WILD"}')

    state = await store.refresh()

    assert (state.mode, state.stale) == (RiskMode.NORMAL, True)
    await store.stop()
    await connection.stop()


async def test_the_audit_trail_says_who_when_what_and_why(redis_url: str, tmp_path: Path) -> None:
    connection = RedisConnection(redis_url, clock=SystemClock())
    store = RedisPolicyStore(connection, clock=SystemClock(), snapshot=PolicySnapshot(tmp_path / "policy.json"))
    await store.start()

    await store.update(expected_version=1, updated_by="ann", reason="smaller bets", changes={"scaling_factor": 0.5})

    (row,) = [orjson.loads(raw) for raw in await connection.client.lrange(AUDIT_KEY, 0, -1)]
    assert (row["updated_by"], row["reason"], row["version"]) == ("ann", "smaller bets", 2)
    assert row["changed"] == {"scaling_factor": [1.0, 0.5]}
    saved = PolicySnapshot(tmp_path / "policy.json").load()
    assert saved is not None
    assert saved.version == 2
    await store.stop()
    await connection.stop()


async def test_a_change_is_published_and_found_by_a_store_that_heard_nothing(redis_url: str) -> None:
    clock = ManualClock(datetime(2025, 5, 4, tzinfo=UTC))
    connection = RedisConnection(redis_url, clock=SystemClock())
    bus = RecordingBus()
    store = RedisPolicyStore(connection, clock=SystemClock(), bus=bus)
    deaf = RedisPolicyStore(connection, clock=clock)
    await store.start()
    await deaf.start()

    await store.update(expected_version=1, updated_by="ann", reason="storm", mode=RiskMode.DEFENSIVE)

    ((event_type, payload),) = bus.published
    assert event_type == "policy.updated"
    assert (payload.previous_mode, payload.new_mode, payload.version) == ("NORMAL", "DEFENSIVE", 2)
    assert deaf.current().version == 1
    await eventually(lambda: clock._sleepers)
    clock.advance(5.0)
    await eventually(lambda: deaf.current().version == 2)
    await store.stop()
    await deaf.stop()
    await connection.stop()


async def test_a_change_that_cannot_be_announced_counts_all_the_same(redis_url: str) -> None:
    connection = RedisConnection(redis_url, clock=SystemClock())
    store = RedisPolicyStore(connection, clock=SystemClock(), bus=RecordingBus(ConnectionLostError("away")))
    await store.start()

    state = await store.update(expected_version=1, updated_by="ann", reason="storm", mode=RiskMode.DEFENSIVE)

    assert (state.mode, state.version) == (RiskMode.DEFENSIVE, 2)
    await store.stop()
    await connection.stop()


async def test_the_copy_is_stale_while_redis_is_away_and_fresh_again_after(server_folder: Path) -> None:
    server = EmbeddedRedis(server_folder / "policy-redis")
    connection = RedisConnection(await server.start(), clock=SystemClock())
    store = RedisPolicyStore(connection, clock=SystemClock())
    await store.start()
    await store.update(expected_version=1, updated_by="ann", reason="storm", mode=RiskMode.DEFENSIVE)

    await server.stop()
    away = await store.refresh()
    with pytest.raises(ConnectionLostError):
        await store.update(expected_version=2, updated_by="ann", reason="calm", mode=RiskMode.NORMAL)
    await server.start()
    back = await store.refresh()

    assert (away.mode, away.version, away.stale) == (RiskMode.DEFENSIVE, 2, True)
    assert (back.mode, back.version, back.stale) == (RiskMode.DEFENSIVE, 2, False)
    await store.stop()
    await connection.stop()
    await server.stop()


def test_a_damaged_snapshot_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"active_mode": "NOR')
    assert PolicySnapshot(tmp_path / "policy.json").load() is None


def test_a_disk_that_refuses_costs_nothing_but_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    PolicySnapshot(tmp_path / "file" / "policy.json").save(first_document(SystemClock().now()))


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
