"""The single writer: one input at a time, nothing acted upon that was not stored, recovery after a lost commit."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from services.exec_risk_service.adapters.memory_journal import MemoryJournal
from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.handlers.maintenance import Maintenance
from services.exec_risk_service.ports import Commit, OrderJournal, StoredFact
from shared.errors import ConnectionLostError
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk, desk_on, started_desk
from tests.support.markets import BTC, flat


class FragileJournal:
    """Loses its connection when told to: ``before`` or ``after`` the step is stored."""

    def __init__(self, inner: OrderJournal) -> None:
        self.inner = inner
        self.lose: str | None = None
        self.writing = 0
        self.most_at_once = 0

    async def load(self, account: str) -> Book:
        return await self.inner.load(account)

    async def commit(self, step: Step) -> Commit:
        self.writing += 1
        self.most_at_once = max(self.most_at_once, self.writing)
        await asyncio.sleep(0)
        try:
            return await self._commit(step)
        finally:
            self.writing -= 1

    async def _commit(self, step: Step) -> Commit:
        lose, self.lose = self.lose, None
        if lose == "before":
            raise ConnectionLostError("the connection broke")
        verdict = await self.inner.commit(step)
        if lose == "after":
            raise ConnectionLostError("the connection broke")
        return verdict

    async def unpublished(self, limit: int) -> tuple[StoredFact, ...]:
        return await self.inner.unpublished(limit)

    async def mark_published(self, positions: Collection[int]) -> None:
        await self.inner.mark_published(positions)


async def fragile_desk() -> tuple[Desk, FragileJournal]:
    journal = FragileJournal(MemoryJournal())
    return await started_desk(flat(50_000, 5), journal=journal), journal


def maintenance_of(desk: Desk, ended: list[bool] | None = None) -> Maintenance:
    return Maintenance(
        desk.service.ledger,
        desk.service.reconciler,
        desk.service.executions,
        recover=desk.service.recover,
        on_fenced=lambda: (ended if ended is not None else []).append(True),
        clock=desk.clock,
        sweep_seconds=10.0,
    )


async def test_inputs_from_many_tasks_are_stored_one_at_a_time() -> None:
    desk, journal = await fragile_desk()
    monitor = desk.service.handlers.position_monitor
    desk.market_clock.advance(60)
    events = []
    for _ in range(10):
        desk.market_clock.advance(1)
        events.append(desk.candle_event())

    await asyncio.gather(*(monitor.on_candle(event) for event in events))

    assert journal.most_at_once == 1
    steps = [event.payload.metadata["step"] for event in desk.bus.events]
    assert steps == sorted(steps)


@pytest.mark.parametrize("lose", ["before", "after"])
async def test_after_a_lost_commit_nothing_is_applied_until_recovery(lose: str) -> None:
    desk, journal = await fragile_desk()
    event = desk.signal_event("BUY")
    journal.lose = lose

    with pytest.raises(ConnectionLostError, match="broke"):
        await desk.service.handlers.order_executor.on_signal(event)
    assert not desk.venue.sent
    with pytest.raises(ConnectionLostError, match="being recovered"):
        await desk.candle()

    await maintenance_of(desk).tick()
    await desk.service.handlers.order_executor.on_signal(event)  # the bus delivers it again
    await desk.settle()

    # Stored before the connection broke: dropped, because its moment has passed. Not stored: a first time.
    assert len(desk.venue.sent) == (0 if lose == "after" else 3)
    assert (BTC in desk.book.positions) == (lose == "before")
    assert_sound(desk)


async def test_the_timer_ends_a_process_whose_account_was_taken_over() -> None:
    desk = await started_desk(flat(50_000, 5))
    old, ended = desk.service, list[bool]()
    timer = maintenance_of(desk, ended)
    await desk.restart()
    desk.market_clock.advance(60)
    with pytest.raises(ConnectionLostError):
        await old.handlers.position_monitor.on_candle(desk.candle_event())

    await timer.tick()

    assert ended == [True]


async def test_the_timer_sweeps_on_time_and_sooner_when_something_looks_wrong() -> None:
    desk = await started_desk(flat(50_000, 5))
    timer = maintenance_of(desk)
    await timer.tick()
    desk.venue.engine._account.wallet += 5

    for _ in range(9):
        desk.clock.advance(1)
        await timer.tick()
    assert desk.book.cash.wallet == 10_000  # nothing looked yet
    desk.clock.advance(1)
    await timer.tick()
    assert desk.service.reconciler.suspects_something
    desk.clock.advance(1)
    await timer.tick()

    assert desk.book.cash.wallet == 10_005


async def test_what_the_reader_of_reports_lost_is_swept_for_at_once() -> None:
    desk = await started_desk(flat(50_000, 5))
    timer = maintenance_of(desk)
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    desk.venue.inner.take_reports()

    timer.sweep_soon()
    await timer.tick()

    assert BTC in desk.book.positions
    assert_sound(desk)


async def test_recovery_waits_for_an_exchange_that_is_away() -> None:
    desk = desk_on(flat(50_000, 5))
    desk.venue.before["account"] = [ConnectionLostError("down")]

    with pytest.raises(ConnectionLostError):
        await desk.start()
    await desk.start()

    assert desk.book.cash.wallet == 10_000
