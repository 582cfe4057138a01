"""Orders whose answer is lost: looked up, never sent again, and counted as exposure until their fate is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal

from services.exec_risk_service.domain.inputs import AnswerLost, SendRefused
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.reports import OrderReport, VenueReport
from services.exec_risk_service.ports import OrderRef
from shared.errors import ConnectionLostError, OutcomeUnknownError
from shared.trading.orders import OrderStatus, OrderType
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, flat

LOST = OutcomeUnknownError("POST /fapi/v1/order: HTTP 503, code -1007, Timeout", code=-1007, http_status=503)


def entry_status(desk: Desk) -> OrderStatus:
    return desk.orders(Leg.ENTRY)[0].status


async def test_a_lost_answer_of_an_executed_order_is_healed_by_the_user_stream() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.after["submit:entry"] = [LOST]

    await desk.signal("BUY")

    statuses = [p.status for p in desk.bus.of("order.updated") if p.metadata["leg"] == "entry"]
    assert OrderStatus.UNKNOWN in statuses
    assert entry_status(desk) is OrderStatus.FILLED
    assert_sound(desk)


async def test_without_the_user_stream_the_order_is_found_by_its_client_id_and_its_fills_by_their_list() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.after["submit:entry"] = [LOST]

    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    desk.venue.engine.take_events()  # the stream told nothing
    assert entry_status(desk) is OrderStatus.UNKNOWN
    for _ in range(4):
        await desk.tick()

    assert entry_status(desk) is OrderStatus.FILLED
    assert_sound(desk)


async def test_an_unknown_order_keeps_its_exposure_and_blocks_its_symbol() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [LOST]  # never executed, but no one knows

    await desk.signal("BUY")

    assert desk.book.available() == Decimal(9_900)  # 500 USD at leverage 5
    await desk.signal("BUY")
    assert desk.bus.of("execution.result")[0].rejection_reason == "orders of this symbol are still under way"


async def test_a_clock_that_is_set_forward_proves_no_absence() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [LOST]
    await desk.signal("BUY")

    desk.clock.jump(60.0)
    for _ in range(28):
        await desk.tick(1.0)

    assert entry_status(desk) is OrderStatus.UNKNOWN


async def test_absence_is_proven_only_after_thirty_seconds_and_several_looks() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [LOST]
    await desk.signal("BUY")

    for _ in range(28):
        await desk.tick(1.0)
        assert entry_status(desk) is OrderStatus.UNKNOWN
    for _ in range(12):
        await desk.tick(1.0)

    assert entry_status(desk) is OrderStatus.ABSENT
    assert desk.bus.of("execution.result")[0].status == "FAILED"
    assert desk.book.available() == Decimal(10_000)
    assert_sound(desk)


async def test_a_single_look_after_a_long_silence_proves_nothing() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [LOST]
    await desk.signal("BUY")
    await desk.tick(0.1)

    await desk.tick(120.0)

    assert entry_status(desk) is OrderStatus.UNKNOWN


async def test_an_order_that_the_exchange_shows_late_is_not_given_up() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.after["submit:entry"] = [LOST]
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    desk.venue.engine.take_events()
    desk.venue.hidden = {desk.orders(Leg.ENTRY)[0].client_order_id}

    for _ in range(60):  # far beyond the protection time: a trade that may be its own keeps it alive
        await desk.tick(1.0)
    assert entry_status(desk) is OrderStatus.UNKNOWN
    desk.venue.hidden = set()
    for _ in range(12):
        await desk.tick(1.0)

    assert entry_status(desk) is OrderStatus.FILLED
    assert_sound(desk)


async def test_an_exchange_that_cannot_be_asked_proves_nothing() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [LOST]
    await desk.signal("BUY")
    desk.venue.before["find"] = [ConnectionLostError("down") for _ in range(1000)]

    for _ in range(120):
        await desk.tick(1.0)

    assert entry_status(desk) is OrderStatus.UNKNOWN


async def test_a_stop_without_an_answer_is_replaced_after_five_seconds_and_never_doubled_for_good() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.after["submit:stop"] = [LOST]
    desk.venue.before["find"] = [ConnectionLostError("down") for _ in range(9)]
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    await desk.venue.inner.deliver(_deaf_to_algos(desk))

    for _ in range(7):
        await desk.tick(1.0)
    assert len(_stops(desk)) == 2  # reduce-only: two are harmless, none is not
    for _ in range(40):
        await desk.tick(1.0)

    assert len(_stops(desk)) == 1
    assert_sound(desk)


async def test_an_exit_without_an_answer_is_tried_again_after_five_seconds() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    desk.venue.before["submit:exit"] = [LOST]
    await desk.signal("SELL")
    assert desk.book.positions

    for _ in range(7):
        await desk.tick(1.0)

    assert not desk.book.positions
    for _ in range(60):
        await desk.tick(1.0)
    assert [o.status for o in desk.orders(Leg.EXIT)] == [OrderStatus.ABSENT, OrderStatus.FILLED]
    assert_sound(desk)


async def test_a_fill_that_crossed_a_cancel_on_the_wire_is_not_lost() -> None:
    desk = await started_desk([*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 10)])
    await desk.signal("BUY")
    stop = desk.orders(Leg.STOP)[0]
    gone = OrderReport(stop.client_order_id, BTC, OrderStatus.CANCELED, desk.market_clock.now(), algo_id="1")
    await desk.service.ledger.apply(gone)  # "cancelled", says the one end
    desk.venue.engine.advance_to(desk.market_clock.now() + timedelta(minutes=4))
    desk.venue.engine.take_events()

    found = await desk.venue.find_order(OrderRef(BTC, stop.client_order_id, is_algo=True))
    assert found is not None
    await desk.service.on_report(found)  # "filled", says the other
    for _ in range(4):
        await desk.tick()

    assert desk.book.orders[stop.client_order_id].status is OrderStatus.FILLED
    assert desk.bus.of("position.closed")[0].exit_reason == "STOP_LOSS"
    assert_sound(desk)


async def test_a_refusal_that_comes_after_the_fill_is_not_believed() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    entry = desk.orders(Leg.ENTRY)[0]

    await desk.service.ledger.apply(SendRefused(entry.client_order_id, "late nonsense", -2019))
    await desk.service.ledger.apply(AnswerLost(entry.client_order_id, "late nonsense"))

    assert entry_status(desk) is OrderStatus.FILLED


def _stops(desk: Desk) -> list[object]:
    return [algo for algo in desk.venue.engine.open_algos(BTC) if algo.type is OrderType.STOP_MARKET]


def _deaf_to_algos(desk: Desk) -> Callable[[VenueReport], Awaitable[None]]:
    async def on_report(report: VenueReport) -> None:
        if not (isinstance(report, OrderReport) and report.is_algo):
            await desk.service.on_report(report)

    return on_report
