"""What every policy store does, in memory and in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shared.clock import SystemClock
from shared.errors import InvalidInputError, PolicyConflictError
from shared.policy.memory_store import MemoryPolicyStore, SharedPolicy
from shared.policy.redis_store import RedisPolicyStore
from shared.policy.store import PolicyStore
from shared.redis_connection import RedisConnection
from shared.trading.policy import DEFAULT_POLICIES, RiskMode

MakeStore = Callable[[], Awaitable[PolicyStore]]


@pytest.fixture(params=["memory", "redis"])
async def make_store(request: pytest.FixtureRequest) -> AsyncIterator[MakeStore]:
    stores: list[PolicyStore] = []
    shared, clock = SharedPolicy(), SystemClock()
    connection = None
    if request.param == "redis":
        connection = RedisConnection(request.getfixturevalue("redis_url"), clock=clock)
        await connection.start()

    async def make() -> PolicyStore:
        store = RedisPolicyStore(connection, clock=clock) if connection else MemoryPolicyStore(clock, shared)
        await store.start()
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.stop()
    if connection:
        await connection.stop()


async def test_an_empty_store_begins_with_version_1_in_mode_normal(make_store: MakeStore) -> None:
    state = (await make_store()).current()

    assert (state.mode, state.version, state.stale) == (RiskMode.NORMAL, 1, False)
    assert state.policy == DEFAULT_POLICIES[RiskMode.NORMAL]


async def test_a_change_is_seen_by_others_after_refresh(make_store: MakeStore) -> None:
    one, other = await make_store(), await make_store()

    await one.update(expected_version=1, updated_by="ann", reason="test", changes={"max_leverage": 5})

    assert other.current().policy.max_leverage == 20
    state = await other.refresh()
    assert (state.policy.max_leverage, state.version) == (5, 2)


async def test_switching_the_mode_brings_its_limits(make_store: MakeStore) -> None:
    store = await make_store()

    state = await store.update(expected_version=1, updated_by="ann", reason="storm", mode=RiskMode.DEFENSIVE)

    assert state.policy == DEFAULT_POLICIES[RiskMode.DEFENSIVE]
    assert state.mode is RiskMode.DEFENSIVE


async def test_a_change_on_top_of_an_old_version_is_refused(make_store: MakeStore) -> None:
    one, other = await make_store(), await make_store()
    await one.update(expected_version=1, updated_by="ann", reason="first", changes={"max_positions": 3})

    with pytest.raises(PolicyConflictError, match="version 2, not 1"):
        await other.update(expected_version=1, updated_by="bob", reason="second", changes={"max_positions": 9})

    assert (await other.refresh()).policy.max_positions == 3


@pytest.mark.parametrize(
    "changes", [{"max_leverage": 0}, {"max_leverage": float("nan")}, {"max_levrage": 3}, {"max_positions": "many"}]
)
async def test_a_wrong_value_is_refused_and_changes_nothing(make_store: MakeStore, changes: dict[str, object]) -> None:
    store = await make_store()

    with pytest.raises(InvalidInputError, match=next(iter(changes))):
        await store.update(expected_version=1, updated_by="ann", reason="typo", changes=changes)

    assert (await store.refresh()).version == 1


@pytest.mark.parametrize(("updated_by", "reason"), [("", "test"), ("ann", " ")])
async def test_a_change_that_names_nobody_or_no_reason_is_refused(
    make_store: MakeStore, updated_by: str, reason: str
) -> None:
    store = await make_store()

    with pytest.raises(InvalidInputError, match="is empty"):
        await store.update(expected_version=1, updated_by=updated_by, reason=reason, changes={"scaling_factor": 0.5})

    assert (await store.refresh()).version == 1


async def test_of_changes_at_the_same_time_one_wins(make_store: MakeStore) -> None:
    stores = [await make_store() for _ in range(5)]

    results = await asyncio.gather(
        *(
            store.update(expected_version=1, updated_by="ann", reason="race", changes={"max_positions": number + 1})
            for number, store in enumerate(stores)
        ),
        return_exceptions=True,
    )

    (won,) = [result for result in results if not isinstance(result, BaseException)]
    assert all(isinstance(result, PolicyConflictError) for result in results if isinstance(result, BaseException))
    assert await stores[0].refresh() == won
    assert won.version == 2
