"""How long a position stands without a stop: kept small while its entry fills, measured, and told when too long."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.domain.protection import Cover
from services.exec_risk_service.domain.reports import OrderReport
from services.exec_risk_service.handlers.cover_watch import CoverWatch
from shared.clock import ManualClock
from shared.errors import OrderRejectedError, OutcomeUnknownError
from shared.telemetry.metrics import Metrics
from shared.trading.orders import OrderStatus, OrderType
from shared.trading.positions import Fill
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import WALL, Desk, started_desk
from tests.support.markets import BTC, flat


def trade(desk: Desk, order: Order, trade_id: int, quantity: str, total: str) -> OrderReport:
    fill = Fill(
        symbol=BTC,
        trade_id=trade_id,
        client_order_id=order.client_order_id,
        exchange_order_id="77",
        side=order.side,
        price=Decimal(50_000),
        quantity=Decimal(quantity),
        commission=Decimal("0.1"),
        realized_pnl=Decimal(0),
        time=desk.market_clock.now(),
    )
    status = OrderStatus.FILLED if Decimal(total) == order.quantity else OrderStatus.PARTIALLY_FILLED
    return OrderReport(order.client_order_id, BTC, status, fill.time, Decimal(total), exchange_order_id="77", fill=fill)


async def desk_with_entry_under_way() -> tuple[Desk, Order]:
    """Return a desk whose entry of 0.01 BTC was sent and not answered: a test reports its fills."""
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OutcomeUnknownError("no answer arrived")]
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    return desk, desk.orders(Leg.ENTRY)[0]


def resting_stops(desk: Desk) -> list[Decimal]:
    return [a.quantity for a in desk.venue.engine.open_algos(BTC) if a.type is OrderType.STOP_MARKET]


async def test_the_burst_of_a_market_order_gets_one_stop() -> None:
    desk, entry = await desk_with_entry_under_way()

    for number in range(1, 6):
        await desk.service.on_report(trade(desk, entry, number, "0.002", str(Decimal("0.002") * number)))
    await desk.settle()

    assert resting_stops(desk) == [Decimal("0.01")]
    assert len(desk.orders(Leg.STOP)) == 1


async def test_a_stop_follows_an_entry_that_pauses_between_its_fills() -> None:
    desk, entry = await desk_with_entry_under_way()
    await desk.service.on_report(trade(desk, entry, 1, "0.002", "0.002"))
    assert resting_stops(desk) == []

    desk.clock.advance(0.25)
    await desk.service.on_report(trade(desk, entry, 2, "0.002", "0.004"))
    await desk.settle()
    assert resting_stops(desk) == [Decimal("0.004")]

    await desk.service.on_report(trade(desk, entry, 3, "0.002", "0.006"))
    assert resting_stops(desk) == [Decimal("0.004")]  # the old one stays while the next fills are waited for
    await desk.tick(0.25)
    assert resting_stops(desk) == [Decimal("0.006")]


async def test_the_time_without_a_stop_counts_until_the_exchange_says_that_one_rests() -> None:
    desk, entry = await desk_with_entry_under_way()
    await desk.service.on_report(trade(desk, entry, 1, "0.004", "0.004"))
    desk.clock.advance(0.25)
    await desk.service.reconciler.upkeep()
    await desk.settle()
    assert desk.book.positions[BTC].cover == Cover(exposed=timedelta(seconds=0.25), first=timedelta(seconds=0.25))

    await desk.service.on_report(trade(desk, entry, 2, "0.006", "0.01"))
    await desk.settle()
    await desk.advance(1)
    await desk.candle()

    opened, updated = desk.bus.of("position.opened")[0], desk.bus.of("position.updated")[-1]
    assert opened.metadata["unprotected_seconds"] == 0.25
    assert updated.metadata["unprotected_seconds"] == 0.25
    assert updated.metadata["is_protected"] is True


async def test_a_position_without_a_stop_for_too_long_is_told_once() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:stop"] = [OrderRejectedError("HTTP 503", code=-1008, http_status=503) for _ in range(3)]
    desk.rules = replace(desk.rules, max_unprotected=timedelta(seconds=1.5))
    desk.service = desk.assemble()
    await desk.service.recover()
    await desk.signal("BUY")

    for _ in range(3):
        await desk.tick()

    alerts = [a for a in desk.bus.of("risk.alert") if a.alert_type == "POSITION_UNPROTECTED"]
    assert [alert.severity for alert in alerts] == ["CRITICAL"]
    assert "2.0 s" in alerts[0].message


async def test_a_fill_that_is_found_late_counts_from_the_sending_of_its_order() -> None:
    desk, entry = await desk_with_entry_under_way()
    desk.clock.advance(20)

    await desk.service.on_report(trade(desk, entry, 1, "0.01", "0.01"))
    await desk.settle()

    assert desk.book.positions[BTC].cover.first == timedelta(seconds=20)


async def test_the_replacement_of_a_stop_that_rests_may_fail_without_closing_the_position() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    held = desk.book.positions[BTC]
    desk.venue.before["submit:stop"] = [OrderRejectedError("too many stops", code=-4045, http_status=400)]

    await _move_stop(desk, held.stop_price + 100)

    assert resting_stops(desk) == [held.size]
    assert desk.book.positions[BTC].stop_price == held.stop_price
    assert [a.alert_type for a in desk.bus.of("risk.alert")] == ["STOP_NOT_MOVED"]
    assert not desk.bus.of("position.closed")
    assert_sound(desk)


async def test_a_stop_may_be_replaced_any_number_of_times() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    start = desk.book.positions[BTC].stop_price

    for number in range(1, 41):
        await _move_stop(desk, start + number)

    assert [algo.trigger_price for algo in desk.venue.engine.open_algos(BTC) if algo.type is OrderType.STOP_MARKET] == [
        start + 40
    ]
    assert_sound(desk)


async def _move_stop(desk: Desk, price: Decimal) -> None:
    """Put another stop price into the book, as the rules of dynamic exits do, and let it be carried out."""
    ledger = desk.service.ledger
    moved = replace(ledger.book.positions[BTC], stop_price=price)
    ledger._book = replace(ledger.book, positions={BTC: moved})
    await desk.service.reconciler.upkeep()
    await desk.settle()


async def test_metrics_tell_the_times_without_a_stop() -> None:
    metrics, clock = Metrics("exec-risk-service", ManualClock(WALL)), ManualClock(WALL)
    desk, entry = await desk_with_entry_under_way()
    watch = CoverWatch(metrics, lambda: desk.book, desk.clock)
    desk.service.ledger._observers = (*desk.service.ledger._observers, watch.on_step)
    assert clock.now() == WALL

    await desk.service.on_report(trade(desk, entry, 1, "0.004", "0.004"))
    desk.clock.advance(0.25)
    assert watch.longest_now() == 0.25
    await desk.service.reconciler.upkeep()
    await desk.settle()

    text = metrics.render()[0].decode()
    assert 'position_unprotected_seconds_count{service="exec-risk-service"} 1.0' in text
    assert 'position_unprotected_seconds_sum{service="exec-risk-service"} 0.25' in text
    assert 'position_unprotected_now_seconds{service="exec-risk-service"} 0.0' in text
