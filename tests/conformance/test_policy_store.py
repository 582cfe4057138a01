"""What every policy store does, in memory, in Redis, and on a Redis Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from shared.clock import SystemClock
from shared.errors import InvalidInputError, PolicyConflictError
from shared.policy.changes import defaults
from shared.policy.memory_store import MemoryPolicyStore, SharedPolicy
from shared.policy.redis_store import RedisPolicyStore
from shared.policy.store import PolicyEditor
from shared.redis_connection import RedisConnection
from shared.trading.policy import DEFAULT_POLICIES, RiskMode
from tests.support.policy_stage import wish

MakeStore = Callable[[], Awaitable[PolicyEditor]]

NORMAL, DEFENSIVE, SMALL = RiskMode


@pytest.fixture(params=["memory", "redis", "cluster"])
async def make_store(request: pytest.FixtureRequest) -> AsyncIterator[MakeStore]:
    stores: list[PolicyEditor] = []
    shared, clock = SharedPolicy(), SystemClock()
    connection = None
    if request.param != "memory":
        url = request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster_url")
        connection = RedisConnection(url, clock=clock)
        await connection.start()

    async def make() -> PolicyEditor:
        # So rarely that no test can lean on it: what is tested here is what ``refresh`` and changes do.
        store = (
            RedisPolicyStore(connection, clock=clock, refresh_seconds=3600, stale_after_seconds=3600)
            if connection
            else MemoryPolicyStore(clock, shared)
        )
        await store.start()
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.stop()
    if connection:
        await connection.stop()


async def test_an_empty_store_begins_with_version_1_in_mode_normal(make_store: MakeStore) -> None:
    store = await make_store()

    state = store.current()
    assert (state.mode, state.version, state.stale) == (NORMAL, 1, False)
    assert state.policy == DEFAULT_POLICIES[NORMAL]
    assert store.document().values(DEFENSIVE)["max_leverage"] == 3


async def test_a_change_holds_at_once_where_it_was_made_and_elsewhere_after_refresh(make_store: MakeStore) -> None:
    one, other = await make_store(), await make_store()

    await one.change(wish(max_leverage=5), expected_version=1)

    assert (one.current().policy.max_leverage, one.current().version) == (5, 2)
    assert other.current().policy.max_leverage == 20
    state = await other.refresh()
    assert (state.policy.max_leverage, state.version) == (5, 2)


async def test_switching_the_mode_brings_its_limits(make_store: MakeStore) -> None:
    store = await make_store()

    await store.change(wish(DEFENSIVE, why="storm"))

    assert store.current().policy == DEFAULT_POLICIES[DEFENSIVE]
    assert store.current().mode is DEFENSIVE


async def test_values_of_a_mode_that_is_not_active_can_be_changed_and_hold_when_it_becomes_active(
    make_store: MakeStore,
) -> None:
    store = await make_store()

    await store.change(wish(of=DEFENSIVE, max_positions=4))

    assert store.current().policy == DEFAULT_POLICIES[NORMAL]
    await store.change(wish(DEFENSIVE))
    assert store.current().policy.max_positions == 4


async def test_a_change_on_top_of_an_old_version_is_refused(make_store: MakeStore) -> None:
    one, other = await make_store(), await make_store()
    await one.change(wish(max_positions=3), expected_version=1)

    with pytest.raises(PolicyConflictError, match="version 2, not 1"):
        await other.change(wish(by="bob", max_positions=9), expected_version=1)

    assert (await other.refresh()).policy.max_positions == 3


async def test_a_change_that_names_no_version_goes_on_top_of_whatever_is_there(make_store: MakeStore) -> None:
    one, other = await make_store(), await make_store()
    await one.change(wish(max_positions=3))

    document = await other.change(wish(max_leverage=2))

    assert (document.version, other.current().policy.max_positions) == (3, 3)


async def test_what_holds_already_makes_no_version(make_store: MakeStore) -> None:
    store = await make_store()

    document = await store.change(wish(NORMAL, max_leverage=20), expected_version=1)

    assert document.version == store.current().version == 1
    assert len(await store.history(limit=10)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"max_leverage": 0},
        {"max_leverage": float("nan")},
        {"max_leverage": True},
        {"max_levrage": 3},
        {"max_positions": "many"},
        {"max_positions": 1.5},
        {"max_risk_pct_per_trade": 1},  # who writes 1 and means one percent
        {"position_size_cap": 10**400},
        {"enable_rl": "yes"},
    ],
    ids=str,
)
async def test_a_wrong_value_is_refused_and_changes_nothing(make_store: MakeStore, changes: dict[str, Any]) -> None:
    store = await make_store()

    with pytest.raises(InvalidInputError, match=next(iter(changes))):
        await store.change(wish(**changes))

    assert (await store.refresh()).version == 1


@pytest.mark.parametrize(("updated_by", "reason"), [("", "test"), ("ann", " "), ("ann", "x" * 501), ("\x1b[1m", "y")])
async def test_a_change_that_does_not_tell_who_and_why_is_refused(
    make_store: MakeStore, updated_by: str, reason: str
) -> None:
    store = await make_store()

    with pytest.raises(InvalidInputError, match=r"updated_by|reason"):
        await store.change(wish(by=updated_by, why=reason, scaling_factor=0.5))

    assert (await store.refresh()).version == 1


async def test_of_changes_at_the_same_time_one_wins(make_store: MakeStore) -> None:
    stores = [await make_store() for _ in range(5)]

    results = await asyncio.gather(
        *(store.change(wish(max_positions=number + 1), expected_version=1) for number, store in enumerate(stores)),
        return_exceptions=True,
    )

    (won,) = [result for result in results if not isinstance(result, BaseException)]
    assert all(isinstance(result, PolicyConflictError) for result in results if isinstance(result, BaseException))
    assert await stores[0].refresh() == won.state()
    assert won.version == 2


async def test_changes_at_the_same_time_that_name_no_version_all_hold_and_are_all_told(make_store: MakeStore) -> None:
    stores = [await make_store() for _ in range(5)]

    await asyncio.gather(
        *(store.change(wish(max_positions=10 + number, by=f"p{number}")) for number, store in enumerate(stores))
    )

    rows = await stores[0].history(limit=10)
    assert [row.version for row in rows] == [6, 5, 4, 3, 2, 1]
    assert {row.updated_by for row in rows} == {"system_init", "p0", "p1", "p2", "p3", "p4"}
    olds_and_news = [row.changed["NORMAL"]["max_positions"] for row in reversed(rows) if row.changed]
    assert [old for old, _ in olds_and_news] == [30, *(new for _, new in olds_and_news[:-1])]


async def test_the_history_says_who_when_what_and_why_and_is_paged(make_store: MakeStore) -> None:
    store = await make_store()
    began = SystemClock().now()
    await store.change(wish(DEFENSIVE, of=DEFENSIVE, why="a storm\nis coming", max_leverage=2))
    await store.change(wish(SMALL, by="bob"))

    newest, switched = await store.history(limit=2)

    assert (newest.version, newest.previous_mode, newest.mode, newest.updated_by) == (3, "DEFENSIVE", SMALL, "bob")
    assert (switched.version, switched.updated_by, switched.reason) == (2, "ann", "a storm is coming")
    assert (switched.previous_mode, switched.mode) == ("NORMAL", "DEFENSIVE")
    assert switched.changed == {"DEFENSIVE": {"max_leverage": (3, 2)}}
    assert began <= switched.at <= newest.at <= SystemClock().now()
    assert [row.version for row in await store.history(limit=10, before=2)] == [1]


async def test_a_rollback_is_a_new_version_with_the_old_mode_and_values(make_store: MakeStore) -> None:
    store = await make_store()
    await store.change(wish(DEFENSIVE, of=SMALL, max_leverage=2))
    await store.change(wish(SMALL, of=NORMAL, max_positions=1))

    document = await store.rollback(2, updated_by="bob", reason="too small")

    assert (document.version, document.active_mode, store.current().mode) == (4, DEFENSIVE, DEFENSIVE)
    assert document.values(SMALL)["max_leverage"] == 2
    assert document.values(NORMAL)["max_positions"] == 30
    (row, *_) = await store.history(limit=1)
    assert (row.updated_by, row.reason) == ("bob", "too small")
    assert row.changed == {"NORMAL": {"max_positions": (1, 30)}}


async def test_a_rollback_to_a_version_that_never_was_is_refused(make_store: MakeStore) -> None:
    store = await make_store()
    await store.change(wish(DEFENSIVE))

    with pytest.raises(InvalidInputError, match="version 7 is not in the audit trail, which holds 1 to 2"):
        await store.rollback(7, updated_by="bob", reason="typo")
    with pytest.raises(PolicyConflictError):
        await store.rollback(1, updated_by="bob", reason="late", expected_version=1)

    assert store.current().version == 2


@pytest.mark.parametrize("mode", [DEFENSIVE, None])
async def test_defaults_come_back_for_one_mode_or_for_all(make_store: MakeStore, mode: RiskMode | None) -> None:
    store = await make_store()
    await store.change(wish(DEFENSIVE, of=DEFENSIVE, max_leverage=2))
    await store.change(wish(of=NORMAL, max_positions=1))

    document = await store.change(defaults(mode, updated_by="ann", reason="afresh"))

    assert document.values(DEFENSIVE)["max_leverage"] == 3
    assert document.values(NORMAL)["max_positions"] == (30 if mode is None else 1)
    assert store.current().mode is (NORMAL if mode is None else DEFENSIVE)
