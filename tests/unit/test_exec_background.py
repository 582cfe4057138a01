"""What runs by itself: exits never wait for entries, the outbox is never given up, every report is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.exec_risk_service.adapters.background import BackgroundLanes, BackgroundTask, RelayTask, every, pump
from services.exec_risk_service.domain.reports import CashChanged, Reconnected, VenueReport
from services.exec_risk_service.domain.step import CancelOrder, Request, SubmitOrder
from shared.clock import SystemClock
from shared.errors import ConnectionLostError
from tests.support.eventually import eventually


class Gate:
    """Carries out requests: entries wait for ``open``, everything else is done at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun: list[str] = []
        self.done: list[str] = []

    async def __call__(self, request: Request) -> None:
        name = getattr(request, "client_order_id", "")
        self.begun.append(name)
        if isinstance(request, SubmitOrder) and not request.is_exit:
            await self.open.wait()
        if name == "bad":
            raise ConnectionLostError("no")
        self.done.append(name)


async def test_exits_and_cancels_do_not_wait_for_entries_that_hang() -> None:
    gate, lanes = Gate(), BackgroundLanes()
    lanes.open(gate)

    await lanes.dispatch(tuple(SubmitOrder(f"entry-{n}", is_exit=False) for n in range(20)))
    await lanes.dispatch((SubmitOrder("exit", is_exit=True), CancelOrder("cancel")))
    await eventually(lambda: sorted(gate.done) == ["cancel", "exit"])

    assert len([name for name in gate.begun if name.startswith("entry")]) == 8
    gate.open.set()
    await lanes.idle(5)
    assert len(gate.done) == 22
    assert lanes.under_way == 0


async def test_a_request_that_fails_does_not_stop_the_next() -> None:
    gate, lanes = Gate(), BackgroundLanes()
    lanes.open(gate)

    await lanes.dispatch((SubmitOrder("bad", is_exit=True), SubmitOrder("good", is_exit=True)))
    await lanes.idle(5)

    assert gate.done == ["good"]


async def test_stopping_waits_for_what_is_under_way() -> None:
    gate, lanes = Gate(), BackgroundLanes()
    lanes.open(gate)
    await lanes.dispatch((SubmitOrder("entry", is_exit=False),))
    stopping = asyncio.create_task(lanes.stop())
    await eventually(lambda: bool(gate.begun))

    gate.open.set()
    await stopping

    assert gate.done == ["entry"]


async def test_the_relay_tries_until_the_bus_takes_what_waits() -> None:
    relay, calls = RelayTask(SystemClock()), list[int]()

    async def drain() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionLostError("Redis is away")
        return 1

    relay.open(drain)
    await relay.start()
    await relay.wake()
    await eventually(lambda: len(calls) >= 3)
    await relay.stop()

    assert len(calls) == 4  # and once more before the end


class Reports:
    """A stream of a few reports."""

    name = "reports"

    def __init__(self, *reports: VenueReport) -> None:
        self._reports = reports

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def reports(self) -> AsyncIterator[VenueReport]:
        for report in self._reports:
            yield report


async def test_a_report_that_cannot_be_applied_is_made_up_for() -> None:
    heard, losses = list[VenueReport](), list[int]()

    async def on_report(report: VenueReport) -> None:
        if isinstance(report, CashChanged):
            raise ConnectionLostError("the journal is away")
        heard.append(report)

    await pump(Reports(CashChanged(), Reconnected()), on_report, lambda: losses.append(1))

    assert heard == [Reconnected()]
    assert losses == [1]


async def test_a_timer_goes_on_after_a_failure() -> None:
    calls = list[int]()

    async def action() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionLostError("away")
        if len(calls) == 2:
            raise ValueError("a mistake of ours")

    task = BackgroundTask("timer", lambda: every(SystemClock(), 0.001, action))
    await task.start()
    await eventually(lambda: len(calls) >= 4)
    await task.stop()
