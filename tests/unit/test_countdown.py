"""The dead-man's switch: for whom it runs, how often it is refreshed, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.handlers.countdown import Countdown, symbols_with_resting_entries
from services.exec_risk_service.ports import ref_of
from shared.errors import ConnectionLostError
from shared.trading.orders import OrderStatus
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, flat


@dataclass
class Switch:
    """Remembers what was asked of it; ``is_away`` refuses."""

    set_to: list[tuple[str, float]] = field(default_factory=list)
    is_away: bool = False

    async def count_down(self, symbol: str, seconds: float) -> None:
        if self.is_away:
            raise ConnectionLostError("not sent")
        self.set_to.append((symbol, seconds))


class Stage:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.switch = Switch()
        self.countdown = Countdown(desk.service.ledger, self.switch, clock=desk.clock, seconds=120.0)

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.desk.clock.advance(1)
            await self.countdown.tick()


@pytest.fixture
async def stage() -> Stage:
    return Stage(await started_desk(flat(50_000, 10)))


async def test_a_position_with_its_stops_needs_none(stage: Stage) -> None:
    await stage.desk.signal("BUY")
    assert len(stage.desk.orders(Leg.STOP)) == 1

    await stage.pass_time(200)

    assert stage.switch.set_to == []


async def test_a_resting_entry_keeps_it_running_and_refreshed(stage: Stage) -> None:
    await stage.desk.ask(execution_strategy="LIMIT")
    (entry,) = stage.desk.orders(Leg.ENTRY)
    assert entry.status is OrderStatus.NEW
    assert symbols_with_resting_entries(stage.desk.book) == {BTC}

    await stage.pass_time(61)

    assert stage.switch.set_to == [(BTC, 120.0)] * 3  # at once, after 30 and after 60 seconds
    await stage.countdown.stop()
    assert stage.switch.set_to[3:] == [(BTC, 0.0)]
    await stage.countdown.stop()
    assert len(stage.switch.set_to) == 4


async def test_it_ends_with_the_entry(stage: Stage) -> None:
    await stage.desk.ask(execution_strategy="LIMIT")
    await stage.pass_time(1)

    (entry,) = stage.desk.orders(Leg.ENTRY)
    await stage.desk.service.ledger.apply(await stage.desk.venue.cancel(ref_of(entry)))
    assert symbols_with_resting_entries(stage.desk.book) == set()
    await stage.pass_time(1)

    assert stage.switch.set_to == [(BTC, 120.0), (BTC, 0.0)]


async def test_a_refusal_is_tried_again_at_the_next_look(stage: Stage) -> None:
    await stage.desk.ask(execution_strategy="LIMIT")
    stage.switch.is_away = True
    await stage.pass_time(3)
    assert stage.switch.set_to == []

    stage.switch.is_away = False
    await stage.pass_time(1)

    assert stage.switch.set_to == [(BTC, 120.0)]
