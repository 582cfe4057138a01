"""Two executors with different journals on one account: each sees the other's orders, and both stop opening."""

from __future__ import annotations

import pytest

from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.reports import OrderReport
from shared.ids import client_order_id
from shared.trading.orders import OrderStatus, OrderType, Side
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, START, flat


def report(name: str, status: OrderStatus = OrderStatus.NEW) -> OrderReport:
    return OrderReport(
        client_order_id=name,
        symbol=BTC,
        status=status,
        time=START,
        exchange_order_id="777",
        side=Side.BUY,
        order_type=OrderType.MARKET,
    )


def alerts(desk: Desk) -> list[str]:
    return [alert.alert_type for alert in desk.bus.of("risk.alert")]


@pytest.fixture
async def desk() -> Desk:
    return await started_desk(flat(50_000, 10))


async def test_an_order_in_our_name_that_we_never_sent_keeps_entries_back(desk: Desk) -> None:
    stranger = client_order_id("a signal of the other", Leg.ENTRY, 1)

    for _ in range(3):
        await desk.service.on_report(report(stranger))

    assert alerts(desk) == ["FOREIGN_EXECUTOR"]
    await desk.signal("BUY")
    assert desk.venue.sent == []
    await desk.restart()
    assert desk.book.trading.state == "REDUCING"  # until a person says otherwise


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("web_1234", OrderStatus.NEW),  # by hand: taken over as a stranger's
        ("autoclose-1", OrderStatus.NEW),
        ("", OrderStatus.NEW),
        (client_order_id("long ago", Leg.ENTRY, 1), OrderStatus.CANCELED),  # forgotten, and over
    ],
)
async def test_other_orders_are_no_executor(desk: Desk, name: str, status: OrderStatus) -> None:
    await desk.service.on_report(report(name, status))

    assert alerts(desk) == []


async def test_our_own_orders_are_ours(desk: Desk) -> None:
    await desk.signal("BUY")
    await desk.signal("SELL")

    assert alerts(desk) == []


async def test_two_executors_stop_each_other_and_leave_each_others_stops(desk: Desk) -> None:
    other = Desk(desk.venue, MemoryJournal(MemoryStore()), None, market_clock=desk.market_clock)
    await other.start()
    await other.candle()

    await other.service.handlers.order_executor.on_signal(other.signal_event("BUY"))
    for line in await _stream(desk):
        await desk.service.on_report(line)
        await other.service.on_report(line)

    assert "FOREIGN_EXECUTOR" in alerts(desk)
    stops = {algo.client_algo_id for algo in desk.venue.engine.open_algos(BTC)}
    await desk.service.reconciler.sweep()
    assert {algo.client_algo_id for algo in desk.venue.engine.open_algos(BTC)} >= stops


async def _stream(desk: Desk) -> list[OrderReport]:
    lines: list[OrderReport] = []

    async def note(line: object) -> None:
        if isinstance(line, OrderReport):
            lines.append(line)

    await desk.venue.inner.deliver(note)
    return lines
