"""Every change of the policy is told: to the services, and for good in the audit trail, whoever dies in between."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import timedelta

import orjson
import pytest

from shared.clock import ManualClock, SystemClock
from shared.errors import ConnectionLostError, TransientError
from shared.policy.changes import apply_change
from shared.policy.redis_store import AUDIT_KEY, CURRENT_KEY
from shared.redis_links.slots import slot_of_command
from shared.trading.policy import RiskMode
from tests.support.eventually import eventually
from tests.support.policy_stage import PolicyStage, RecordingBus, policy_stage, wish


@pytest.fixture(params=["redis", "cluster"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[PolicyStage]:
    url = request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster_url")
    async with policy_stage(url) as stage:
        yield stage


async def test_the_trail_says_who_when_what_and_why_to_anybody_with_redis_cli(stage: PolicyStage) -> None:
    store = await stage.store()

    await store.change(wish(by="ann", why="smaller bets", scaling_factor=0.5))

    first, row = await stage.trail()
    assert (first["version"], first["updated_by"]) == (1, "system_init")
    assert (row["version"], row["updated_by"], row["reason"], row["mode"]) == (2, "ann", "smaller bets", "NORMAL")
    assert row["changed"] == {"NORMAL": {"scaling_factor": [1.0, 0.5]}}
    assert row["at"] == (await stage.stored()).last_updated.isoformat()


async def test_secrets_and_tricks_in_a_reason_stay_out_of_the_trail(stage: PolicyStage) -> None:
    store = await stage.store()

    await store.change(wish(RiskMode.DEFENSIVE, why="see redis://ann:canary-pw@host\r\n\x1b[31mFAKE ROW"))

    assert (await stage.trail())[-1]["reason"] == "see redis://ann:***@host FAKE ROW"
    assert b"canary" not in await stage.raw()


# -- telling the services ---------------------------------------------------------------------------------------------


async def test_a_change_is_published_with_what_changed(stage: PolicyStage) -> None:
    bus = RecordingBus()
    store = await stage.store(bus=bus)

    await store.change(wish(RiskMode.DEFENSIVE, of=RiskMode.DEFENSIVE, max_positions=4))
    await store.change(wish(max_leverage=9))

    (event_type, switched), (_, aside) = bus.published
    assert event_type == "policy.updated"
    assert (switched.previous_mode, switched.new_mode, switched.version) == ("NORMAL", "DEFENSIVE", 2)
    assert switched.changed_fields == ("active_mode", "max_positions")
    assert (aside.previous_mode, aside.new_mode) == ("DEFENSIVE", "DEFENSIVE")
    assert aside.changed_fields == ("NORMAL.max_leverage",)


async def test_a_change_that_cannot_be_announced_counts_all_the_same(stage: PolicyStage) -> None:
    store = await stage.store(bus=RecordingBus(ConnectionLostError("away")))

    document = await store.change(wish(RiskMode.DEFENSIVE))

    assert (document.active_mode, document.version) == (RiskMode.DEFENSIVE, 2)
    assert [row["version"] for row in await stage.trail()] == [1, 2]


async def test_who_hears_nothing_sees_a_change_within_half_a_second(stage: PolicyStage) -> None:
    clock = ManualClock(SystemClock().now())
    deaf, writer = await stage.store(clock=clock), await stage.store()
    await eventually(lambda: clock._sleepers, what="a store that waits for its next look")

    await writer.change(wish(RiskMode.DEFENSIVE))

    assert deaf.current().mode is RiskMode.NORMAL
    clock.advance(0.5)
    await eventually(lambda: deaf.current().mode is RiskMode.DEFENSIVE, what="the new mode")


# -- writers that die -------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from shared.clock import SystemClock
from shared.policy.redis_store import RedisPolicyStore
from shared.redis_connection import RedisConnection
from shared.trading.policy import RiskMode
from tests.support.policy_stage import wish


class HangingBus:
    async def publish(self, event_type, payload):
        print("changed", flush=True)
        await asyncio.Event().wait()


async def main():
    clock = SystemClock()
    store = RedisPolicyStore(RedisConnection(sys.argv[1], clock=clock), clock=clock, bus=HangingBus())
    await store.start()
    await store.change(wish(RiskMode.DEFENSIVE, by="late ann", why="last words"))


asyncio.run(main())
"""


async def test_a_writer_killed_before_it_told_anybody_is_seen_and_its_row_is_not_lost(redis_url: str) -> None:
    async with policy_stage(redis_url) as stage:
        store = await stage.store()
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, redis_url, stdout=PIPE)
        assert process.stdout is not None
        while await process.stdout.readline() != b"changed\n":  # after the lines of its log
            assert not process.stdout.at_eof()
        process.kill()
        await process.communicate()

        await eventually(lambda: store.current().mode is RiskMode.DEFENSIVE, what="the change of the dead")
        assert [row["version"] for row in await stage.trail()] == [1]

        await store.change(wish(max_leverage=9))

        assert [(row["version"], row["updated_by"]) for row in await stage.trail()] == [
            (1, "system_init"),
            (2, "late ann"),
            (3, "ann"),
        ]


@pytest.mark.parametrize("occasion", ["start", "history", "rollback"])
async def test_a_row_that_is_missing_is_made_up_for_at_the_next_occasion(stage: PolicyStage, occasion: str) -> None:
    store = await stage.store(refresh_seconds=3600)
    following = apply_change(await stage.stored(), wish(RiskMode.DEFENSIVE, by="late ann"), now=SystemClock().now())
    assert following is not None
    await stage.put(following)

    if occasion == "start":
        await stage.store()
    else:
        await store.refresh()
        if occasion == "history":
            assert [row.updated_by for row in await store.history(limit=10)] == ["late ann", "system_init"]
        else:
            await store.rollback(1, updated_by="bob", reason="no")

    assert (await stage.trail())[1]["updated_by"] == "late ann"


async def test_where_no_row_can_be_written_nothing_is_changed(stage: PolicyStage) -> None:
    store = await stage.store()
    await stage.connection.client.delete(AUDIT_KEY)
    await stage.connection.execute(("LPUSH", AUDIT_KEY, "the list of another software"))

    with pytest.raises(TransientError, match="audit trail quantum:policy:audit cannot be written: WRONGTYPE"):
        await store.change(wish(RiskMode.DEFENSIVE))

    assert (await stage.stored()).version == 1


# -- a trail that knows more than the policy --------------------------------------------------------------------------


async def test_a_trail_that_is_ahead_after_a_failover_keeps_both_stories(stage: PolicyStage) -> None:
    first = await stage.store(refresh_seconds=3600)
    before = await stage.raw()
    await first.change(wish(RiskMode.DEFENSIVE, by="undone ann"))
    await first.change(wish(RiskMode.AGGRESSIVE_SMALL_ACCOUNT, by="undone ann"))
    await first.stop()
    await stage.put(before)  # the policy's master was lost with both, the trail's was not

    store = await stage.store()
    await store.change(wish(by="bob", max_leverage=9))
    await store.change(wish(by="bob", max_leverage=8))
    await (await stage.store()).history(limit=10)  # a look writes nothing twice

    assert [(row["version"], row["updated_by"]) for row in await stage.trail()] == [
        (1, "system_init"),
        (2, "undone ann"),
        (3, "undone ann"),
        (2, "bob"),
        (3, "bob"),
    ]
    back = await store.rollback(2, updated_by="bob", reason="the one that held")
    assert back.values(RiskMode.NORMAL)["max_leverage"] == 9


async def test_a_clock_that_goes_backwards_disturbs_neither_order_nor_changes(stage: PolicyStage) -> None:
    now = SystemClock().now()
    ahead = await stage.store(clock=ManualClock(now + timedelta(days=365)))
    behind = await stage.store(clock=ManualClock(now))

    await ahead.change(wish(max_leverage=9))
    await behind.change(wish(max_leverage=8))

    newest, older, *_ = await behind.history(limit=10)
    assert (newest.version, older.version) == (3, 2)
    assert newest.at < older.at
    assert (await ahead.refresh()).policy.max_leverage == 8


async def test_what_a_newer_version_of_the_software_wrote_survives_our_changes(stage: PolicyStage) -> None:
    store = await stage.store(refresh_seconds=3600)
    newer = orjson.loads(await stage.raw())
    newer["modes"]["NORMAL"]["max_correlation"] = 0.7
    newer["modes"]["PARANOID"] = {"max_leverage": 1}
    newer["approved_by"] = ["ann", "bob"]
    await stage.put(orjson.dumps(newer))

    await store.change(wish(RiskMode.DEFENSIVE, max_leverage=9))
    await store.rollback(1, updated_by="ann", reason="no")

    kept = orjson.loads(await stage.raw())
    assert kept["modes"]["NORMAL"]["max_correlation"] == 0.7
    assert kept["modes"]["PARANOID"] == {"max_leverage": 1}
    assert kept["approved_by"] == ["ann", "bob"]
    assert (kept["version"], kept["modes"]["NORMAL"]["max_leverage"]) == (3, 20.0)


def test_on_a_cluster_policy_and_trail_lie_in_different_slots_so_that_this_suite_means_something() -> None:
    assert slot_of_command(("GET", CURRENT_KEY)) != slot_of_command(("GET", AUDIT_KEY))
