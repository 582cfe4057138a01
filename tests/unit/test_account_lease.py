"""One executor: who takes the lease when, and what a process that may have lost it sends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.adapters.memory_lease import MemoryLeases
from services.exec_risk_service.adapters.this_process import is_proven_dead, this_process
from services.exec_risk_service.domain.lease import NOBODY, Holder, holder_of
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.handlers.account_lease import AccountLease
from services.exec_risk_service.handlers.executor_health import lease_check
from shared.clock import ManualClock
from shared.errors import ConnectionLostError, FencedError
from shared.health.contract import DependencyHealth, HealthStatus
from shared.trading.orders import OrderStatus
from tests.support.exec_risk_desk import ACCOUNT, WALL, started_desk
from tests.support.markets import flat

LEASE, GRACE = 10.0, 8.0


class Leases(MemoryLeases):
    """Leases whose store can be away."""

    is_away = False

    async def renew(self, account: str, holder: str, *, seconds: float) -> bool:
        if self.is_away:
            raise ConnectionLostError("away")
        return await super().renew(account, holder, seconds=seconds)


class Stage:
    """One store, a clock, and the processes that want the account."""

    def __init__(self) -> None:
        self.clock = ManualClock(WALL)
        self.leases = Leases(MemoryStore(), self.clock)
        self.dead: set[str] = set()
        self.lost: list[str] = []

    def process(self, name: str) -> AccountLease:
        return AccountLease(
            self.leases,
            account=ACCOUNT,
            holder=name,
            is_proven_dead=self.dead.__contains__,
            clock=self.clock,
            seconds=LEASE,
            grace_seconds=GRACE,
            on_lost=lambda: self.lost.append(name),
        )

    async def pass_time(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let time pass in small steps, so that every sleeper wakes at its moment; return how much passed."""
        passed = 0.0
        while passed < seconds and not until():
            self.clock.advance(0.25)
            passed += 0.25
            for _ in range(5):
                await asyncio.sleep(0)
        return passed


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_free_account_is_taken_at_once_and_kept(stage: Stage) -> None:
    lease = stage.process("one")
    assert lease.bar() == f"account {ACCOUNT} is not held by this process"

    await lease.start()
    await stage.pass_time(60)

    assert lease.bar() is None
    await lease.stop()
    assert (await stage.leases.read(ACCOUNT)).holder == NOBODY


async def test_the_second_waits_while_the_first_lives_and_begins_when_it_stops(stage: Stage) -> None:
    first, second = stage.process("one"), stage.process("two")
    await first.start()
    waiting = asyncio.create_task(second.start())

    await stage.pass_time(60)

    assert not waiting.done()
    assert first.bar() is None
    found = await lease_check(second).probe()
    assert isinstance(found, DependencyHealth)
    assert (found.status, found.error) == (HealthStatus.DEGRADED, "the account is held by another process")
    await first.stop()
    await stage.pass_time(1, waiting.done)
    assert second.bar() is None
    assert stage.lost == []
    await second.stop()


async def test_a_holder_whose_death_is_proven_is_succeeded_at_once(stage: Stage) -> None:
    await stage.process("one").start()
    stage.dead.add("one")
    second = stage.process("two")

    await second.start()

    assert second.bar() is None
    await second.stop()


async def test_a_silent_holder_is_waited_out_for_lease_and_grace(stage: Stage) -> None:
    first, second = stage.process("one"), stage.process("two")
    await first.start()
    stage.leases.is_away = True  # the first cannot renew, and lives
    waiting = asyncio.create_task(second.start())

    await stage.pass_time(LEASE / 2 + 0.5)
    assert "was not renewed for" in str(first.bar())  # long before anybody else may act

    passed = LEASE / 2 + 0.5 + await stage.pass_time(60, waiting.done)
    assert LEASE + GRACE <= passed <= LEASE + GRACE + 1
    stage.leases.is_away = False
    await stage.pass_time(2)
    assert stage.lost == ["one"]
    assert "taken over" in str(first.bar())
    assert second.bar() is None
    await second.stop()


async def test_a_store_that_comes_back_in_time_ends_the_pause(stage: Stage) -> None:
    lease = stage.process("one")
    await lease.start()
    stage.leases.is_away = True
    await stage.pass_time(7)
    assert lease.bar() is not None

    stage.leases.is_away = False
    await stage.pass_time(1)

    assert lease.bar() is None
    await lease.stop()


# -- what a process that may have lost the account sends -------------------------------------------------------------


async def test_no_entry_is_decided_while_the_lease_is_in_doubt() -> None:
    desk = await started_desk(flat(50_000, 5), entry_bar=lambda: "the lease was not renewed")

    await desk.signal("BUY")

    assert desk.venue.sent == []
    assert [alert.message for alert in desk.bus.of("risk.alert")] == ["BUY BTCUSDT: the lease was not renewed"]


async def test_the_fence_is_looked_at_again_after_the_intent_is_stored() -> None:
    def bar() -> str | None:
        # The decision passes, the first look of the sender too; then the database takes its time.
        return "the lease ran out" if is_up and _is_marked(desk) else None

    is_up = False
    desk = await started_desk(flat(50_000, 5), entry_bar=bar)
    is_up = True

    await desk.signal("BUY")

    (entry,) = desk.orders(Leg.ENTRY)
    assert desk.venue.sent == []
    assert (entry.status, entry.reason) == (OrderStatus.ABSENT, "not sent: the lease ran out")


async def test_exits_pass_while_entries_wait() -> None:
    bars: list[str] = []
    desk = await started_desk(flat(50_000, 5), entry_bar=lambda: bars[0] if bars else None)
    await desk.signal("BUY")
    bars.append("the lease was not renewed")

    await desk.signal("SELL")

    assert desk.venue.engine.position("BTCUSDT").quantity == 0


async def test_a_process_that_lost_the_account_does_not_take_it_back_in_its_recovery() -> None:
    store = MemoryStore()
    leases = MemoryLeases(store, ManualClock(WALL))
    await leases.take(ACCOUNT, "one", seen_version=0, seconds=10)
    desk = await started_desk(flat(50_000, 5), journal=MemoryJournal(store, holder="one"))
    await leases.take(ACCOUNT, "two", seen_version=1, seconds=10)

    with pytest.raises(FencedError):
        await desk.service.recover()

    assert desk.service.ledger.is_fenced
    assert store.account(ACCOUNT).lease_holder == "two"


def _is_marked(desk: Any) -> bool:
    return any(order.status is OrderStatus.SUBMITTED for order in desk.orders(Leg.ENTRY))


# -- proof of death ----------------------------------------------------------------------------------------------------


def test_this_process_is_not_dead() -> None:
    assert holder_of(this_process().as_text()) == this_process()
    assert not is_proven_dead(this_process().as_text())
    assert str(this_process()) == f"process {os.getpid()} on {this_process().host}"


def test_a_process_that_ended_is_dead_also_before_its_parent_asked() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        stat = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8")
        name = replace(this_process(), pid=child.pid, started=int(stat.rpartition(")")[2].split()[19]))
        assert not is_proven_dead(name.as_text())
        child.send_signal(signal.SIGSTOP)
        assert not is_proven_dead(name.as_text())
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie: nobody has asked for it
        assert is_proven_dead(name.as_text())
    assert is_proven_dead(name.as_text())


def test_a_process_id_that_was_given_again_is_another_process() -> None:
    earlier = replace(this_process(), started=this_process().started - 1)

    assert is_proven_dead(earlier.as_text())


@pytest.mark.parametrize(
    "stranger",
    [
        replace(this_process(), pid=2**22 + 1, host="elsewhere"),
        replace(this_process(), pid=2**22 + 1, boot="another boot"),
        replace(this_process(), pid=2**22 + 1, namespace="pid:[1]"),
        Holder(host=this_process().host, boot="", namespace="", pid=2**22 + 1, started=1),
    ],
)
def test_nothing_is_proven_about_a_stranger(stranger: Holder) -> None:
    assert not is_proven_dead(stranger.as_text())


@pytest.mark.parametrize("text", ["", "someone", "{}", "[]", '{"host": 1}'])
def test_nothing_is_proven_about_what_cannot_be_read(text: str) -> None:
    assert not is_proven_dead(text)
