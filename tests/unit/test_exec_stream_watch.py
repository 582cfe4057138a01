"""A user stream is alive when it tells what it has to tell; one that only stands is replaced, and entries wait."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from services.exec_risk_service.handlers.stream_watch import UserStreamWatch
from shared.trading.orders import Side
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import flat, market


@dataclass
class Link:
    """A connection that a test opens, cuts and lets speak."""

    connection: int = 1
    is_connected: bool = True
    lost_at: float = 0.0
    heard_at: float = 0.0
    renewals: list[str] = field(default_factory=list)

    def renew(self, why: str) -> None:
        self.renewals.append(why)
        self.is_connected = False

    def connect(self) -> None:
        self.connection += 1
        self.is_connected = True


@dataclass
class Stage:
    desk: Desk
    link: Link
    watch: UserStreamWatch

    def speak(self) -> None:
        self.link.heard_at = self.desk.clock.monotonic()

    async def wait(self, seconds: float) -> None:
        self.desk.clock.advance(seconds)
        await self.watch.check()

    def state(self) -> TradingState:
        state = self.desk.book.trading.state
        assert isinstance(state, TradingState)
        return state


@pytest.fixture
async def stage() -> Stage:
    desk = await started_desk(flat(50_000, 60))
    link = Link()
    watch = UserStreamWatch(desk.service.ledger, desk.service.reconciler, link, desk.clock)
    desk.service.ledger.observe(watch.on_step)
    desk.clock.advance(100)
    await watch.check()
    return Stage(desk, link, watch)


async def test_silence_proves_nothing_while_nothing_happens(stage: Stage) -> None:
    await stage.wait(3600)

    assert stage.state() is TradingState.ACTIVE
    assert stage.link.renewals == []


async def test_a_stream_that_tells_after_an_order_is_alive(stage: Stage) -> None:
    await stage.desk.signal("BUY")
    stage.speak()
    await stage.wait(60)

    assert stage.link.renewals == []
    assert stage.watch.line == "live, last event 60 s ago"


async def test_silence_after_an_order_holds_entries_until_a_new_connection_and_a_comparison(stage: Stage) -> None:
    await stage.desk.signal("BUY")

    await stage.wait(5)
    assert stage.state() is TradingState.ACTIVE
    await stage.wait(0.5)
    assert stage.state() is TradingState.REDUCING
    assert "dead" in stage.watch.line
    assert len(stage.link.renewals) == 1

    await stage.wait(1)
    stage.link.connect()
    await stage.wait(1)
    assert stage.state() is TradingState.REDUCING  # not read by REST yet
    await stage.desk.service.reconciler.sweep(after_gap=True)
    await stage.wait(0.25)
    assert stage.state() is TradingState.ACTIVE
    assert [a.alert_type for a in stage.desk.bus.of("risk.alert")] == ["USER_STREAM_LOST"]
    changes = [(c.previous, c.current) for c in stage.desk.bus.of("trading_state.changed")]
    assert changes == [("ACTIVE", "REDUCING"), ("REDUCING", "ACTIVE")]
    assert_sound(stage.desk)


async def test_a_trade_that_only_rest_shows_is_a_probe(stage: Stage) -> None:
    stage.desk.venue.engine.place_order(market(Side.BUY, "0.01", client_order_id="by-hand"))
    stage.desk.venue.engine.take_events()
    await stage.desk.service.reconciler.sweep(after_gap=True)

    await stage.wait(5.5)

    assert stage.desk.book.trading.restriction(TradingCause.USER_STREAM_LOST) is not None


async def test_a_connection_that_is_away_for_seconds_holds_entries(stage: Stage) -> None:
    stage.link.is_connected, stage.link.lost_at = False, stage.desk.clock.monotonic()

    await stage.wait(4)
    assert stage.state() is TradingState.ACTIVE
    await stage.wait(2)

    assert "no connection for 6 s" in stage.desk.bus.of("risk.alert")[0].message


async def test_a_stream_that_dies_again_and_again_holds_entries_longer(stage: Stage) -> None:
    for _ in range(2):
        await stage.desk.signal("BUY" if not stage.desk.book.positions else "SELL")
        await stage.wait(5.5)
        stage.link.connect()
        await stage.watch.check()
        await stage.desk.service.reconciler.sweep()
        await stage.wait(0.25)

    assert stage.state() is TradingState.REDUCING  # 10 s from the second death on
    await stage.wait(10)
    assert stage.state() is TradingState.ACTIVE


async def test_what_was_lost_before_a_restart_is_over_once_the_stream_stands(stage: Stage) -> None:
    await stage.desk.signal("BUY")
    await stage.wait(5.5)
    assert stage.state() is TradingState.REDUCING

    await stage.desk.restart()
    fresh = UserStreamWatch(stage.desk.service.ledger, stage.desk.service.reconciler, Link(), stage.desk.clock)
    await fresh.check()

    assert stage.state() is TradingState.ACTIVE


async def test_what_recovery_finds_is_no_probe(stage: Stage) -> None:
    stage.link.connection = 7
    stage.desk.venue.engine.place_order(market(Side.BUY, "0.01", client_order_id="by-hand"))
    stage.desk.venue.engine.take_events()
    await stage.desk.service.reconciler.sweep(after_gap=True)
    await stage.wait(60)

    assert stage.link.renewals == []
