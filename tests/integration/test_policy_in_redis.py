"""The policy while Redis comes and goes."""

from __future__ import annotations

from pathlib import Path

import orjson

from shared.clock import SystemClock
from shared.policy.document import first_document
from shared.policy.redis_store import AUDIT_KEY, CURRENT_KEY, RedisPolicyStore
from shared.policy.snapshot import PolicySnapshot
from shared.redis_connection import RedisConnection
from shared.trading.policy import FALLBACK_POLICY_STATE, RiskMode

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
    assert row["changed"] == {"scaling_factor": 0.5}
    assert (tmp_path / "policy.json").is_file()
    await store.stop()
    await connection.stop()
