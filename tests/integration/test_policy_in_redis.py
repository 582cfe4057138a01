"""The cached policy while Redis comes, goes, hangs, lies and forgets."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.clock import ManualClock, SystemClock
from shared.errors import ConnectionLostError, DecodeError
from shared.policy.changes import apply_change, defaults
from shared.policy.document import BUILT_IN, PolicyDocument, first_document
from shared.policy.snapshot import PolicySnapshot
from shared.telemetry.metrics import Metrics
from shared.trading.policy import FALLBACK_POLICY_STATE, RiskMode
from tests.support.eventually import eventually
from tests.support.policy_stage import NOBODY, PolicyStage, policy_stage, wish

NOON = datetime(2025, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[PolicyStage]:
    async with policy_stage(redis_url) as stage:
        yield stage


def version(number: int, mode: RiskMode = RiskMode.DEFENSIVE) -> PolicyDocument:
    """Return a document of that version."""
    document = apply_change(first_document(NOON), wish(mode, max_positions=7), now=NOON)
    assert document is not None
    return document.model_copy(update={"version": number})


# -- what holds without Redis -----------------------------------------------------------------------------------------


async def test_without_redis_and_without_snapshot_the_careful_policy_holds() -> None:
    async with policy_stage(NOBODY) as stage:
        store = await stage.store()

        assert store.current() == FALLBACK_POLICY_STATE
        assert store.document() == BUILT_IN


async def test_without_redis_the_snapshot_holds_and_is_marked_stale(tmp_path: Path) -> None:
    PolicySnapshot(tmp_path / "policy.json").save(version(4))
    async with policy_stage(NOBODY) as stage:
        store = await stage.store(snapshot=PolicySnapshot(tmp_path / "policy.json"))

        state = store.current()
        assert (state.mode, state.policy.max_leverage, state.version, state.stale) == (RiskMode.DEFENSIVE, 3, 4, True)
        assert store.document().values(RiskMode.NORMAL)["max_positions"] == 7


async def test_of_the_snapshots_of_a_machine_the_newest_holds_and_a_damaged_one_hides_no_other(tmp_path: Path) -> None:
    PolicySnapshot(tmp_path / "ai-service.json").save(version(4))
    PolicySnapshot(tmp_path / "exec-risk-service.json").save(version(5))
    (tmp_path / "analytics-os-service.json").write_text('{"active_mode": "NOR')

    found = PolicySnapshot(tmp_path / "ai-service.json").load()

    assert found == version(5)
    assert PolicySnapshot(tmp_path / "elsewhere" / "policy.json").load() is None


def test_a_disk_that_refuses_costs_nothing_but_the_snapshot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    PolicySnapshot(tmp_path / "file" / "policy.json").save(version(2))


# -- fresh and stale --------------------------------------------------------------------------------------------------


async def test_reading_the_cached_policy_is_quick_and_needs_no_redis() -> None:
    async with policy_stage(NOBODY) as stage:
        store = await stage.store(metrics=Metrics("test", SystemClock()))
        took = []
        for _ in range(50):
            began = time.perf_counter()
            for _ in range(100):
                store.current()
            took.append((time.perf_counter() - began) / 100)

    assert min(took) < 10e-6


async def test_the_copy_is_stale_while_redis_is_away_and_fresh_again_after(server_folder: Path) -> None:
    server = EmbeddedRedis(server_folder / "policy-redis")
    async with policy_stage(await server.start()) as stage:
        store = await stage.store()
        await store.change(wish(RiskMode.DEFENSIVE))

        await server.stop()
        away = await store.refresh()
        with pytest.raises(ConnectionLostError):
            await store.change(wish(RiskMode.NORMAL))
        with pytest.raises(ConnectionLostError):
            await store.history(limit=1)
        await server.start()

        assert (away.mode, away.version, away.stale) == (RiskMode.DEFENSIVE, 2, True)
        # Without anybody asking for it.
        await eventually(lambda: not store.current().stale, what="a fresh policy")
        assert (store.current().mode, store.current().version) == (RiskMode.DEFENSIVE, 2)
    await server.stop()


async def test_a_redis_that_hangs_makes_the_copy_stale_by_its_age(server_folder: Path) -> None:
    server = EmbeddedRedis(server_folder / "hanging-redis")
    clock = ManualClock(NOON)
    async with policy_stage(await server.start()) as stage:
        store = await stage.store(clock=clock, stale_after_seconds=5.0)
        pid = int((await stage.connection.client.info("server"))["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            clock.advance(5.0)
            before = store.current()
            clock.advance(0.1)
            after = store.current()
        finally:
            os.kill(pid, signal.SIGCONT)

        assert (before.stale, after.stale, after.version) == (False, True, 1)
        await eventually(lambda: not store.current().stale, what="a fresh policy")
    await server.stop()


@pytest.mark.parametrize("raw", [b'{"active_mode": "WILD"}', b"\xff\x00", b"[" * 5000, b"1" * 300_000])
async def test_a_damaged_policy_keeps_the_last_good_one_and_only_a_whole_new_one_mends_it(
    stage: PolicyStage, raw: bytes
) -> None:
    store = await stage.store()
    await store.change(wish(max_positions=7))
    await stage.put(raw)

    state = await store.refresh()
    assert (state.mode, state.policy.max_positions, state.stale) == (RiskMode.NORMAL, 7, True)
    with pytest.raises(DecodeError, match="bring back an earlier version, or the defaults of every mode"):
        await store.change(wish(max_positions=8))

    mended = await store.rollback(1, updated_by="ann", reason="damaged")
    assert (mended.version, store.current().version, store.current().stale) == (3, 3, False)
    assert store.current().policy.max_positions == 30
    await stage.put(raw)
    assert (await store.change(defaults(None, updated_by="ann", reason="again"))).version == 4


async def test_every_mode_the_switch_to_it_and_where_it_was_read_from_show_in_the_metrics(stage: PolicyStage) -> None:
    metrics = Metrics("test", SystemClock())
    store = await stage.store(metrics=metrics)
    await store.change(wish(RiskMode.DEFENSIVE))
    store.current()

    text = metrics.render()[0].decode()

    assert 'policy_reads_total{service="test",source="cache"} 1.0' in text
    assert 'policy_mode{service="test",mode="DEFENSIVE"} 1.0' in text or 'mode="DEFENSIVE",service="test"} 1.0' in text
    assert "policy_write_seconds_count" in text


# -- a Redis that forgets ---------------------------------------------------------------------------------------------


async def test_an_empty_redis_gets_the_snapshot_so_that_lost_data_loosens_no_limit(
    stage: PolicyStage, tmp_path: Path
) -> None:
    PolicySnapshot(tmp_path / "policy.json").save(version(4))

    store = await stage.store(snapshot=PolicySnapshot(tmp_path / "policy.json"))

    assert (store.current().mode, store.current().version, store.current().stale) == (RiskMode.DEFENSIVE, 4, False)
    assert await stage.stored() == version(4)
    assert [row.version for row in await store.history(limit=10)] == [4]


async def test_a_snapshot_proves_nothing_against_a_policy_in_redis(stage: PolicyStage, tmp_path: Path) -> None:
    await stage.put(version(2))
    PolicySnapshot(tmp_path / "policy.json").save(version(9, RiskMode.AGGRESSIVE_SMALL_ACCOUNT))

    store = await stage.store(snapshot=PolicySnapshot(tmp_path / "policy.json"))

    assert (store.current().mode, store.current().version) == (RiskMode.DEFENSIVE, 2)
    assert (await stage.stored()).version == 2


async def test_a_redis_that_lost_everything_gets_the_policy_back_from_who_runs(stage: PolicyStage) -> None:
    store = await stage.store(refresh_seconds=3600)
    await store.change(wish(RiskMode.DEFENSIVE, why="storm"))
    await stage.connection.client.flushdb()

    await store.refresh()

    assert not store.current().stale
    stored = await stage.stored()
    assert (stored.version, stored.active_mode) == (2, RiskMode.DEFENSIVE)
    (row, *_) = await store.history(limit=1)
    assert (row.version, row.reason) == (2, "storm")


async def test_versions_that_a_failover_lost_are_put_back(stage: PolicyStage) -> None:
    store, other = await stage.store(refresh_seconds=3600), await stage.store(refresh_seconds=3600)
    before = await stage.raw()
    await store.change(wish(RiskMode.DEFENSIVE))
    await stage.put(before)

    await other.refresh()
    assert other.current().mode is RiskMode.NORMAL  # it never saw the other version
    await store.refresh()

    assert (await stage.stored()).active_mode is RiskMode.DEFENSIVE
    assert (await other.refresh()).mode is RiskMode.DEFENSIVE
    await stage.put(before)
    assert (await store.change(wish(max_positions=7))).version == 3
    assert store.current().mode is RiskMode.DEFENSIVE


# -- the copy on disk -------------------------------------------------------------------------------------------------


async def test_a_change_is_saved_at_once_and_every_five_minutes_again(stage: PolicyStage, tmp_path: Path) -> None:
    path, clock = tmp_path / "paper" / "policy.json", ManualClock(NOON)
    store = await stage.store(clock=clock, snapshot=PolicySnapshot(path), refresh_seconds=30.0)
    await store.change(wish(RiskMode.DEFENSIVE))

    def saved() -> int | None:
        copy = PolicySnapshot(path).load()
        return copy.version if copy else None

    await eventually(lambda: saved() == 2, what="the snapshot")
    path.unlink()
    for _ in range(10):
        await eventually(lambda: clock._sleepers, what="the next look")
        assert not path.exists()
        clock.advance(30.0)
    await eventually(lambda: saved() == 2, what="the snapshot after 5 minutes")


class StalledDisk(PolicySnapshot):
    """A disk that writes nothing until it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.go_on = Event()

    def save(self, document: PolicyDocument) -> None:
        self.go_on.wait()
        super().save(document)


async def test_a_disk_that_stalls_delays_neither_changes_nor_reads(stage: PolicyStage, tmp_path: Path) -> None:
    disk = StalledDisk(tmp_path / "policy.json")
    store = await stage.store(snapshot=disk)
    try:
        await store.change(wish(RiskMode.DEFENSIVE))
        await store.change(wish(max_positions=7))
        assert (await store.refresh()).version == 3
    finally:
        disk.go_on.set()

    def saved() -> bool:
        copy = disk.load()
        return copy is not None and copy.version == 3

    await eventually(saved, what="the latest version on disk")


async def test_what_redis_holds_has_the_shape_of_specification_v2(stage: PolicyStage) -> None:
    await stage.store()

    assert (await stage.raw()).startswith(b'{"active_mode":"NORMAL","modes":{"NORMAL":{"max_leverage":20')
