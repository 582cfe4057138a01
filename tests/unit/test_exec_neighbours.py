"""What other services say and do not say: the mode of the system, a silent ai-service; and forgotten orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from services.exec_risk_service.handlers.signal_source import SignalSource
from services.exec_risk_service.handlers.system_mode import SystemMode
from shared.clock import ManualClock
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.events.v3 import ServiceHeartbeatPayload, SystemModeChangedPayload
from shared.trading.orders import OrderStatus
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import WALL, Desk, started_desk
from tests.support.markets import BTC, START, flat


def event_of(event_type: str, payload: EventPayload, name: str = "one") -> Event[Any]:
    return Event(
        EventMetadata(
            event_id=f"{event_type}-{name}",
            event_type=event_type,
            trace_id="trace",
            causation_id=None,
            timestamp=WALL,
            source="analytics-os-service",
            sequence=1,
        ),
        payload,
    )


# -- mode of the system ------------------------------------------------------------------------------------------------


class Stops:
    """Notes who asked for the emergency stop."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def request(self, reason: str, by: str) -> None:
        self.asked.append((reason, by))


def mode(name: str, *, trades: bool = True, growth: bool = True, close: bool = False, event: str = "") -> Event[Any]:
    payload = SystemModeChangedPayload(
        previous_mode="NORMAL",
        new_mode=name,
        reason="a drill",
        changed_by="operator",
        allow_new_trades=trades,
        allow_position_expansion=growth,
        force_close_positions=close,
    )
    return event_of("system.mode_changed", payload, event or name)


async def speaker(desk: Desk) -> tuple[Stops, Callable[[Event[Any]], Awaitable[None]]]:
    stops = Stops()
    return stops, SystemMode(desk.service.ledger, stops.request).on_mode_changed


def state(desk: Desk) -> TradingState:
    status = desk.book.trading.state
    assert isinstance(status, TradingState)
    return status


@pytest.mark.parametrize(
    "changed",
    [
        mode("EMERGENCY"),
        mode("MAINTENANCE"),
        mode("DEFENSIVE", trades=False),
        mode("DEFENSIVE", growth=False),
        mode("NORMAL", trades=False),
    ],
)
async def test_modes_without_new_trades_hold_entries_back_until_the_mode_allows_them(changed: Event[Any]) -> None:
    desk = await started_desk(flat(50_000, 5))
    stops, say = await speaker(desk)

    await say(changed)
    await desk.signal("BUY")

    assert state(desk) is TradingState.REDUCING
    assert "a drill" in desk.book.trading.reason
    assert not desk.book.positions
    assert stops.asked == []
    await say(mode("NORMAL", event="back"))
    assert state(desk) is TradingState.ACTIVE


async def test_a_mode_that_closes_everything_asks_for_the_emergency_stop_each_time_it_is_delivered() -> None:
    desk = await started_desk(flat(50_000, 5))
    stops, say = await speaker(desk)
    event = mode("EMERGENCY", trades=False, growth=False, close=True)

    await say(event)
    await say(event)

    assert stops.asked == [("system mode EMERGENCY: a drill", "operator")] * 2
    assert state(desk) is TradingState.REDUCING
    assert [a.severity for a in desk.bus.of("risk.alert")] == ["CRITICAL"]


async def test_a_normal_mode_does_not_end_a_halt() -> None:
    desk = await started_desk(flat(50_000, 5))
    _, say = await speaker(desk)
    await desk.service.handlers.system_mode.on_mode_changed(mode("EMERGENCY", close=True))
    await desk.service.handlers.emergency_stop.tick()
    assert state(desk) is TradingState.HALTED

    await say(mode("NORMAL"))

    assert state(desk) is TradingState.HALTED


# -- ai-service is silent ----------------------------------------------------------------------------------------------


def beat(service: str = "ai-service") -> Event[Any]:
    payload = ServiceHeartbeatPayload(
        service_name=service, status="HEALTHY", uptime_seconds=1, cpu_percent=1, memory_percent=1, memory_used_mb=1
    )
    return event_of("service.heartbeat", payload)


class Source:
    """The source of signals on two clocks; ``rate`` is how much faster the market runs."""

    def __init__(self, rate: float = 1.0) -> None:
        self.clock, self.market, self.rate = ManualClock(WALL), ManualClock(START), rate
        self.source = SignalSource(self.clock, self.market)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.market.advance(seconds * self.rate)


async def test_the_last_signals_count_for_five_minutes_after_the_last_heartbeat() -> None:
    stage = Source()
    await stage.source.on_heartbeat(beat())

    stage.wait(10)
    assert stage.source.line == "live"
    stage.wait(50)
    assert stage.source.line == ("ai-service silent for 60 s: its last signals count for another 240 s of market time")
    assert stage.source.bar() is None
    stage.wait(240)
    assert stage.source.bar() is None
    stage.wait(1)
    assert stage.source.bar() == "ai-service has been silent for 301 s of market time: its last signals count no more"
    assert stage.source.line.endswith("its last signals count no more, protection goes on")

    await stage.source.on_heartbeat(beat("analytics-os-service"))
    assert stage.source.bar() is not None
    await stage.source.on_heartbeat(beat())
    assert stage.source.bar() is None


async def test_a_fast_market_does_not_make_a_pause_between_two_heartbeats_an_absence() -> None:
    stage = Source(rate=600)

    stage.wait(14)
    assert stage.source.bar() is None
    stage.wait(2)
    assert stage.source.bar() is not None


async def test_positions_are_guarded_and_end_in_time_without_any_candle() -> None:
    desk = await started_desk(flat(50_000, 60), rules=Rules(max_holding=timedelta(minutes=30)))
    await desk.signal("BUY")
    await desk.advance(25)
    await desk.service.reconciler.sweep()
    assert desk.bus.of("position.closed") == []

    await desk.advance(6)
    await desk.service.reconciler.sweep()
    await desk.settle()

    assert desk.bus.of("position.closed")[0].exit_reason == "TIMEOUT"
    assert_sound(desk)


# -- orders that nobody remembers --------------------------------------------------------------------------------------


async def test_a_stop_that_ended_for_us_and_rests_all_the_same_is_swept_away() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    ledger = desk.service.ledger
    stop = desk.orders(Leg.STOP)[0]
    twin = replace(stop, client_order_id="qt3-st-twin", sequence=9, trigger_price=Decimal(48_000))
    await desk.venue.inner.submit(twin)
    ended = replace(twin, status=OrderStatus.CANCELED, cancel_requested=True, settled=True)
    ledger._book = replace(ledger.book, orders={**ledger.book.orders, twin.client_order_id: ended})

    await desk.service.reconciler.sweep()
    assert len(desk.venue.engine.open_algos(BTC)) == 3  # the list may be older than the end of the order
    await desk.service.reconciler.sweep()

    assert "qt3-st-twin" not in [algo.client_algo_id for algo in desk.venue.engine.open_algos(BTC)]


async def test_orders_of_strangers_are_left_alone() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    stop = desk.orders(Leg.STOP)[0]
    await desk.venue.inner.submit(replace(stop, client_order_id="by-hand", trigger_price=Decimal(47_000)))

    for _ in range(3):
        await desk.service.reconciler.sweep()

    assert "by-hand" in [algo.client_algo_id for algo in desk.venue.engine.open_algos(BTC)]
    assert desk.book.trading.restriction(TradingCause.POSITION_MISMATCH) is None
