"""What every store of leases must do, in memory and in PostgreSQL: one holder, and a journal only for that one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from services.exec_risk_service.adapters import migrations
from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.adapters.memory_lease import MemoryLeases
from services.exec_risk_service.adapters.postgres_journal import PostgresJournal
from services.exec_risk_service.adapters.postgres_lease import PostgresLeases
from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.inputs import WalletObserved
from services.exec_risk_service.domain.lease import NOBODY
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.ports import Commit, LeaseStore, OrderJournal
from shared.clock import ManualClock, SystemClock
from shared.errors import ConnectionLostError, FencedError
from shared.postgres.migrate import migrate
from shared.postgres.pool import PostgresPool
from tests.support.exec_risk_desk import ACCOUNT, NORMAL, WALL
from tests.support.markets import START


@dataclass
class Stage:
    """A store of leases, and the journals on the same store."""

    leases: LeaseStore
    journal_of: Callable[[str], OrderJournal]

    async def taken_by(self, holder: str, *, seconds: float = 30.0) -> int:
        record = await self.leases.read(ACCOUNT)
        epoch = await self.leases.take(ACCOUNT, holder, seen_version=record.version, seconds=seconds)
        assert epoch is not None
        return epoch


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else str(request.getfixturevalue("database_url"))


@pytest.fixture
async def stage(url: str | None) -> AsyncIterator[Stage]:
    if url is None:
        store = MemoryStore()
        yield Stage(
            MemoryLeases(store, ManualClock(datetime(2026, 1, 1, tzinfo=UTC))),
            lambda holder: MemoryJournal(store, holder=holder),
        )
        return
    await migrate(url, "exec_risk", Path(migrations.__path__[0]), clock=SystemClock())
    pool = PostgresPool(url, clock=SystemClock(), max_size=3)
    await pool.start()
    yield Stage(PostgresLeases(pool), lambda holder: PostgresJournal(pool, holder=holder))
    await pool.stop()


def wallet_step(book: Book) -> Step:
    step = decide(book, WalletObserved(Decimal(5), START), Context(Rules(), NORMAL, {}, WALL))
    assert step is not None
    return step


async def test_a_new_account_is_nobodys_and_overdue(stage: Stage) -> None:
    record = await stage.leases.read(ACCOUNT)

    assert (record.holder, record.epoch) == (NOBODY, 0)
    assert record.overdue_seconds >= 0


async def test_each_takeover_is_one_epoch_further(stage: Stage) -> None:
    first = await stage.taken_by("one")
    second = await stage.taken_by("two", seconds=20.0)

    record = await stage.leases.read(ACCOUNT)
    assert (record.holder, record.epoch, second) == ("two", second, first + 1)
    assert -20.0 <= record.overdue_seconds < -15.0


async def test_of_two_who_saw_the_same_only_one_takes_it(stage: Stage) -> None:
    seen = (await stage.leases.read(ACCOUNT)).version

    first = await stage.leases.take(ACCOUNT, "one", seen_version=seen, seconds=10)
    second = await stage.leases.take(ACCOUNT, "two", seen_version=seen, seconds=10)

    assert first is not None
    assert second is None
    assert (await stage.leases.read(ACCOUNT)).holder == "one"


async def test_a_renewal_in_the_last_moment_keeps_the_others_out(stage: Stage) -> None:
    await stage.taken_by("one", seconds=0)
    seen = await stage.leases.read(ACCOUNT)
    assert seen.overdue_seconds >= 0

    assert await stage.leases.renew(ACCOUNT, "one", seconds=10)

    assert await stage.leases.take(ACCOUNT, "two", seen_version=seen.version, seconds=10) is None
    assert (await stage.leases.read(ACCOUNT)).overdue_seconds < 0


async def test_who_was_succeeded_cannot_renew_nor_release(stage: Stage) -> None:
    await stage.taken_by("one")
    await stage.taken_by("two")

    assert not await stage.leases.renew(ACCOUNT, "one", seconds=10)
    await stage.leases.release(ACCOUNT, "one")

    assert (await stage.leases.read(ACCOUNT)).holder == "two"


async def test_a_released_account_is_nobodys(stage: Stage) -> None:
    await stage.taken_by("one")

    await stage.leases.release(ACCOUNT, "one")

    assert (await stage.leases.read(ACCOUNT)).holder == NOBODY


async def test_a_takeover_fences_the_journal_before_the_next_one_has_read_it(stage: Stage) -> None:
    await stage.taken_by("one")
    journal = stage.journal_of("one")
    book = await journal.load(ACCOUNT)

    await stage.taken_by("two")

    assert await journal.commit(wallet_step(book)) is Commit.FENCED
    assert (await stage.journal_of("two").load(ACCOUNT)).cash.wallet is None


async def test_who_does_not_hold_the_account_cannot_load_it_and_fences_nobody(stage: Stage) -> None:
    await stage.taken_by("two")
    journal = stage.journal_of("two")
    book = await journal.load(ACCOUNT)

    with pytest.raises(FencedError, match="taken over"):
        await stage.journal_of("one").load(ACCOUNT)

    assert await journal.commit(wallet_step(book)) is Commit.STORED


async def test_a_store_that_is_away_says_so(database_url: str) -> None:
    pool = PostgresPool(database_url, clock=SystemClock(), max_size=1)
    leases = PostgresLeases(pool)

    with pytest.raises(ConnectionLostError):
        await leases.read(ACCOUNT)
    with pytest.raises(ConnectionLostError):
        await leases.renew(ACCOUNT, "one", seconds=10)
