"""The emergency stop over an engine that fails as a test asks: what goes, in which order, and what counts as done."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from infrastructure.paper_exchange.records import OrderRequest, TimeInForce
from services.exec_risk_service.adapters.ccxt_venue import CcxtReportStream
from services.exec_risk_service.adapters.local_journal import LocalJournal
from services.exec_risk_service.adapters.stop_latch import FileLatch, latch_path, read_latch, write_latch
from services.exec_risk_service.domain.closing_orders import closing_order
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.reports import Reconnected
from services.exec_risk_service.domain.trading_state import TradingState
from services.exec_risk_service.handlers.emergency_stop import EmergencyStop
from services.exec_risk_service.handlers.execution_desk import ExecutionDesk
from services.exec_risk_service.handlers.maintenance import Maintenance
from services.exec_risk_service.handlers.reconciler import Reconciler
from services.exec_risk_service.ports import LatchedStop
from shared.errors import ConnectionLostError, InvalidInputError, OrderRejectedError, OutcomeUnknownError
from shared.exchange.client import BinanceUsdm
from shared.exchange.request_costs import Priority
from shared.rpc.commands import EmergencyStopRequest
from shared.trading.orders import OrderType, Side
from tests.support.exec_risk_desk import WALL, Desk, started_desk
from tests.support.markets import BTC, START, flat

STOP = LatchedStop("one", "hands off", "ada", WALL)


def stop_of(desk: Desk) -> EmergencyStop:
    return desk.service.stop


async def stopped(desk: Desk, reason: str = "hands off") -> None:
    """Ask for the stop and let it work until it has nothing left to do."""
    await stop_of(desk).request(reason, "ada")
    await work(desk)


async def work(desk: Desk, passes: int = 10) -> None:
    for _ in range(passes):
        if await stop_of(desk).pursue():
            break
        desk.clock.advance(2)
        await desk.settle()
    await desk.settle()


def rest_a_limit(desk: Desk, name: str = "stranger") -> None:
    desk.venue.engine.place_order(
        OrderRequest(
            symbol=BTC,
            side=Side.BUY,
            type=OrderType.LIMIT,
            quantity=Decimal("0.01"),
            price=Decimal(40_000),
            time_in_force=TimeInForce.GTC,
            client_order_id=name,
        )
    )


def is_flat(desk: Desk) -> bool:
    engine = desk.venue.engine
    return engine.position(BTC).quantity == 0 and not engine.open_orders() and not engine.open_algos()


# -- what goes ---------------------------------------------------------------------------------------------------------


async def test_a_position_its_stops_and_a_strangers_limit_all_go() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    rest_a_limit(desk)

    await stopped(desk)

    assert is_flat(desk)
    progress = stop_of(desk).progress
    assert (progress.status, progress.positions_closed, progress.orders_left) == ("stopped", 1, 0)
    assert desk.book.positions == {}
    assert desk.bus.of("position.closed")[-1].exit_reason == "MANUAL"
    assert desk.agrees_with_exchange()
    [report] = [a for a in desk.bus.of("risk.alert") if a.alert_type == "EMERGENCY_STOP_VERIFIED"]
    assert "the account is flat" in report.message


async def test_a_resting_limit_goes_although_there_is_no_position() -> None:
    desk = await started_desk(flat(50_000, 30))
    rest_a_limit(desk)

    await stopped(desk)

    assert is_flat(desk)
    assert stop_of(desk).progress.orders_cancelled == 1


async def test_a_cancel_that_is_not_confirmed_is_not_believed() -> None:
    desk = await started_desk(flat(50_000, 30))
    rest_a_limit(desk)
    desk.venue.before["cancel"] = [OutcomeUnknownError("timeout") for _ in range(3)]

    await stop_of(desk).request("hands off", "ada")
    for _ in range(3):
        await stop_of(desk).pursue()
        desk.clock.advance(2)
        assert stop_of(desk).progress.status == "in_progress"
    assert stop_of(desk).progress.orders_left == 1

    await work(desk)
    assert is_flat(desk)


async def test_the_stop_of_a_position_stays_until_the_position_is_gone() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.venue.before["submit"] = [OrderRejectedError("-1008 overloaded", code=-1008, http_status=503)]

    await stop_of(desk).request("hands off", "ada")
    await stop_of(desk).pursue()

    assert desk.venue.engine.position(BTC).quantity > 0
    assert len(desk.venue.engine.open_algos(BTC)) == 2
    assert stop_of(desk).progress.status == "in_progress"
    await work(desk)
    assert is_flat(desk)


async def test_a_close_without_an_answer_is_not_believed_and_not_doubled() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.venue.after["submit"] = [OutcomeUnknownError("timeout")]

    await stopped(desk)

    assert is_flat(desk)
    assert desk.agrees_with_exchange()


async def test_an_exchange_that_is_away_is_asked_until_it_is_back() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.venue.before["account"] = [ConnectionLostError("no route") for _ in range(3)]

    await stop_of(desk).request("hands off", "ada")
    await stop_of(desk).pursue()
    assert "no route" in stop_of(desk).progress.message
    assert stop_of(desk).progress.status == "in_progress"

    await work(desk)
    assert is_flat(desk)


async def test_an_entry_of_unknown_fate_keeps_the_stop_open_and_is_closed_when_it_fills_late() -> None:
    desk = await started_desk(flat(50_000, 30))
    desk.venue.before["submit:entry"] = [OutcomeUnknownError("timeout")]
    await desk.signal("BUY")
    await stop_of(desk).request("hands off", "ada")
    for _ in range(3):
        await stop_of(desk).pursue()
        desk.clock.advance(1)
    assert stop_of(desk).progress.status == "in_progress"
    [entry] = desk.orders(Leg.ENTRY)

    desk.venue.engine.place_order(
        OrderRequest(
            symbol=BTC,
            side=Side.BUY,
            type=OrderType.MARKET,
            quantity=entry.quantity,
            client_order_id=entry.client_order_id,
        )
    )
    await work(desk)

    assert is_flat(desk)
    assert stop_of(desk).progress.status == "stopped"


async def test_the_orders_of_the_stop_are_in_the_book_with_their_fills() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")

    await stopped(desk)

    [closing] = desk.orders(Leg.EXIT)
    assert closing.client_order_id.startswith("qt3-es-")
    assert closing.filled_quantity == Decimal("0.01")
    assert closing.settled


# -- what follows ------------------------------------------------------------------------------------------------------


async def test_no_entry_passes_while_the_stop_is_in_force() -> None:
    desk = await started_desk(flat(50_000, 30))
    await stopped(desk)

    await desk.signal("BUY")

    assert desk.book.positions == {}
    assert desk.book.trading.state is TradingState.HALTED


async def test_a_second_request_joins_the_first() -> None:
    desk = await started_desk(flat(50_000, 30))

    first = await stop_of(desk).request("hands off", "ada")
    second = await stop_of(desk).request("me too", "bob")

    assert second.stop_id == first.stop_id
    await work(desk)
    assert len(desk.bus.of("emergency.stop")) == 1


async def test_a_resume_is_refused_before_the_account_is_flat_and_without_a_stop() -> None:
    desk = await started_desk(flat(50_000, 30))
    with pytest.raises(InvalidInputError, match="nothing to resume"):
        await stop_of(desk).resume("because", "ada")
    await stop_of(desk).request("hands off", "ada")

    with pytest.raises(InvalidInputError, match="not done"):
        await stop_of(desk).resume("because", "ada")

    await work(desk)
    await stop_of(desk).resume("looked into it", "ada")
    await desk.signal("BUY")
    assert BTC in desk.book.positions


async def test_half_a_stop_is_refused() -> None:
    desk = await started_desk(flat(50_000, 30))

    with pytest.raises(InvalidInputError, match="whole"):
        await stop_of(desk).answer(
            EmergencyStopRequest(reason="hands off", requested_by="ada", close_all_positions=False)
        )

    assert stop_of(desk).bar() is None


async def test_a_stop_in_the_journal_goes_on_after_a_restart_without_its_file() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.venue.before["submit"] = [OrderRejectedError("-1008", code=-1008, http_status=503) for _ in range(20)]
    await stop_of(desk).request("hands off", "ada")
    await stop_of(desk).pursue()
    desk.venue.before.clear()

    await desk.restart()

    assert stop_of(desk).bar() is not None
    await work(desk)
    assert is_flat(desk)


async def test_an_order_that_was_sent_without_the_journal_is_told_to_it_before_its_fill_is_read(
    tmp_path: Path,
) -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.service.ledger.needs_recovery = True  # PostgreSQL is away

    await stop_of(desk).request("hands off", "ada")
    for _ in range(20):
        await stop_of(desk).pursue()
        desk.clock.advance(4)
    assert is_flat(desk)
    assert stop_of(desk).progress.status == "stopped"
    assert Leg.EXIT not in {order.leg for order in desk.book.orders.values()}

    await desk.service.recover()

    [closing] = desk.orders(Leg.EXIT)
    assert closing.filled_quantity == Decimal("0.01")
    assert desk.book.trading.stop is not None
    assert desk.agrees_with_exchange()


async def test_a_list_of_orders_that_cannot_be_read_keeps_no_position_open() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.venue.before["open_orders"] = [KeyError("a status of tomorrow")]

    await stop_of(desk).request("hands off", "ada")
    assert not await stop_of(desk).pursue()

    assert desk.venue.engine.position(BTC).quantity == 0
    assert "a status of tomorrow" in stop_of(desk).progress.message
    await work(desk)
    assert is_flat(desk)


async def test_a_position_that_comes_late_and_cannot_be_closed_ends_the_success() -> None:
    desk = await started_desk(flat(50_000, 30))
    await stopped(desk)
    assert stop_of(desk).progress.status == "stopped"
    desk.venue.engine.place_order(
        OrderRequest(
            symbol=BTC,
            side=Side.BUY,
            type=OrderType.MARKET,
            quantity=Decimal("0.01"),
            client_order_id="stranger",
        )
    )
    desk.venue.before["submit"] = [ConnectionLostError("no route")]

    await stop_of(desk).pursue()

    assert stop_of(desk).progress.status == "in_progress"
    with pytest.raises(InvalidInputError, match="not done"):
        await stop_of(desk).resume("fine", "ada")


async def test_a_stored_stop_goes_on_although_the_recovery_was_cut_short() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.venue.before["submit"] = [OrderRejectedError("-1008", code=-1008, http_status=503) for _ in range(20)]
    await stop_of(desk).request("hands off", "ada")
    await stop_of(desk).pursue()
    desk.venue.before.clear()
    desk.venue.before["account"] = [ConnectionLostError("no route")]
    desk.service = desk.assemble()
    with pytest.raises(ConnectionLostError):
        await desk.service.recover()
    assert desk.service.ledger.needs_recovery

    for _ in range(10):
        await stop_of(desk).tick()
        desk.clock.advance(2)

    assert is_flat(desk)


async def test_while_the_journal_is_away_a_flat_account_is_not_looked_at_without_pause() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.service.ledger.needs_recovery = True  # PostgreSQL is away: the book keeps the position
    await stop_of(desk).request("hands off", "ada")
    for _ in range(20):
        await stop_of(desk).pursue()
        desk.clock.advance(4)
    assert stop_of(desk).progress.status == "stopped"
    assert desk.book.positions

    before = desk.venue.listings
    for _ in range(40):
        await stop_of(desk).tick()
        desk.clock.advance(0.25)

    assert desk.venue.listings - before <= 1


async def test_a_journal_that_hangs_holds_up_no_close() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    [entry] = desk.orders(Leg.ENTRY)
    rest_a_limit(desk, entry.client_order_id)  # its cancel is told to the journal before the position is closed
    await stop_of(desk).request("hands off", "ada")

    async with desk.service.ledger._lock:
        working = asyncio.create_task(stop_of(desk).pursue())
        await asyncio.wait((working,), timeout=2.5)
        assert desk.venue.engine.position(BTC).quantity == 0
    await working


async def test_the_looks_of_the_stop_go_as_exits_do() -> None:
    desk = await started_desk(flat(50_000, 30))
    await stopped(desk)

    assert desk.venue.priority is Priority.EXIT


async def test_closes_that_are_taken_and_close_nothing_are_not_sent_without_pause() -> None:
    desk = await started_desk(flat(50_000, 30))
    await stop_of(desk).request("hands off", "ada")
    stop, passes, began = stop_of(desk), 0, desk.clock.monotonic()
    assert stop._work is not None
    while desk.clock.monotonic() - began < 60:
        passes += 1
        stop._plan_next(stop._work, moved=True)
        desk.clock.advance(stop._work.next_pass - desk.clock.monotonic())

    assert passes * 90 < 2400  # weight of a pass, and of the minute


async def test_a_user_event_of_any_shape_does_not_end_the_reading() -> None:
    client = SimpleNamespace(user_events=asyncio.Queue())
    stream = CcxtReportStream(cast("BinanceUsdm", client))
    reading = asyncio.create_task(stream._translate())
    client.user_events.put_nowait({"e": "ORDER_TRADE_UPDATE", "T": 10**30, "o": {}})

    report = await asyncio.wait_for(anext(aiter(stream.reports())), 1)

    assert isinstance(report, Reconnected)
    assert not reading.done()
    reading.cancel()


# -- the latch and the local journal -----------------------------------------------------------------------------------


async def test_the_latch_outlives_the_process(tmp_path: Path) -> None:
    path = latch_path(tmp_path, "paper", "live")
    await FileLatch(path).write(STOP)

    assert await FileLatch(path).read() == STOP
    await FileLatch(path).clear()
    assert await FileLatch(path).read() is None
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("text", ["", "stop!", "{}", '{"stop_id": 1}', "[]", "\x00"])
def test_whatever_the_file_holds_it_is_a_stop(tmp_path: Path, text: str) -> None:
    path = tmp_path / "STOP"
    path.write_text(text)

    found = read_latch(path)

    assert found is not None
    assert found == read_latch(path)


def test_a_latch_that_is_a_folder_is_a_stop(tmp_path: Path) -> None:
    (tmp_path / "STOP").mkdir()

    assert read_latch(tmp_path / "STOP") is not None


async def test_a_latch_that_cannot_be_written_says_so_and_the_stop_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    latch = FileLatch(tmp_path / "file" / "STOP")

    with pytest.raises(ConnectionLostError, match="cannot be written"):
        await latch.write(STOP)


def test_a_latch_is_written_over_what_was_touched(tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()

    write_latch(tmp_path / "STOP", STOP)

    assert read_latch(tmp_path / "STOP") == STOP


async def test_what_is_written_down_is_there_after_the_process(tmp_path: Path) -> None:
    order = closing_order(
        "one", BTC, 1, signed_quantity=Decimal("-0.015"), mark_price=Decimal("50000.1"), at=START + timedelta(seconds=1)
    )
    journal = LocalJournal(tmp_path / "deep" / "orders.sqlite")
    await journal.add(order)
    await journal.add(order)
    await journal.close()

    again = LocalJournal(tmp_path / "deep" / "orders.sqlite")
    assert await again.orders() == (order,)
    await again.mark_told(order.client_order_id)
    assert await again.orders(untold_only=True) == ()
    await again.close()


async def test_a_local_journal_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "orders.sqlite").mkdir()

    with pytest.raises(ConnectionLostError, match="cannot be used"):
        await LocalJournal(tmp_path / "orders.sqlite").orders()


def test_the_same_stop_names_its_orders_alike() -> None:
    one = closing_order("one", BTC, 1, signed_quantity=Decimal(1), mark_price=Decimal(1), at=START)
    again = closing_order("one", BTC, 1, signed_quantity=Decimal(2), mark_price=Decimal(3), at=START)
    other = closing_order("two", BTC, 1, signed_quantity=Decimal(1), mark_price=Decimal(1), at=START)

    assert one.client_order_id == again.client_order_id != other.client_order_id
    assert one.side is Side.SELL


# -- what is too large for one order -----------------------------------------------------------------------------------


async def test_a_position_that_is_larger_than_the_largest_market_order_is_closed_in_parts() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    ledger = desk.service.ledger
    largest = Decimal("0.004")
    ledger.instruments = {**ledger.instruments, BTC: replace(ledger.instruments[BTC], max_market_quantity=largest)}

    await desk.signal("SELL")
    for _ in range(3):
        await desk.settle()

    assert desk.venue.engine.position(BTC).quantity == 0
    assert [order.quantity for order in desk.orders(Leg.EXIT)] == [largest, largest, Decimal("0.002")]
    assert desk.agrees_with_exchange()


async def test_an_execution_that_cannot_go_on_leaves_the_upkeep_alone() -> None:
    done: list[str] = []

    class Worker:
        suspects_something = False

        async def chase(self) -> None:
            done.append("chase")

        async def upkeep(self) -> None:
            done.append("upkeep")

        async def work(self) -> None:
            raise AssertionError("no price")

    desk = await started_desk(flat(50_000, 30))
    maintenance = Maintenance(
        desk.service.ledger,
        cast("Reconciler", Worker()),
        cast("ExecutionDesk", Worker()),
        recover=desk.service.recover,
        on_fenced=lambda: None,
        clock=desk.clock,
        sweep_seconds=30,
    )

    with pytest.raises(AssertionError):
        await maintenance.tick()

    assert done == ["chase", "upkeep"]
