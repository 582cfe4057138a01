"""Hours of random trading with random faults, and at the end books that agree."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import OrderRequest
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.domain.governor_rules import GovernorRules
from services.exec_risk_service.domain.reports import OrderReport, Reconnected, VenueReport
from services.exec_risk_service.domain.rules import Rules
from shared.clock import ManualClock
from shared.errors import ConnectionLostError, OrderRejectedError, OutcomeUnknownError
from shared.trading.orders import OrderType, Side
from tests.support.exec_risk_checks import assert_sound, refolded
from tests.support.exec_risk_desk import Desk, FaultyVenue
from tests.support.markets import START

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
LOST = OutcomeUnknownError("HTTP 503 unknown", http_status=503)
#: Random trading loses five times in a row within the hour: nobody stops it here.
RULES = Rules(governor=GovernorRules(is_enabled=False))
REFUSALS = (
    OrderRejectedError("code -2019", code=-2019, http_status=400),
    OrderRejectedError("code -1008", code=-1008, http_status=503),
    OrderRejectedError("code -2021", code=-2021, http_status=400),
    ConnectionLostError("never sent"),
)


class Chaos:
    """One random life of a desk."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        source = SyntheticCandleSource(seed, SYMBOLS, "1m")
        engine = MatchingEngine(source, start=START, wallet=Decimal(10_000))
        store = MemoryStore()
        self.desk = Desk(FaultyVenue(engine), MemoryJournal(store), store, market_clock=ManualClock(START), rules=RULES)

    async def live(self, minutes: int) -> None:
        await self.desk.start()
        for _ in range(minutes):
            await self.minute()

    async def minute(self) -> None:
        desk, rng = self.desk, self.rng
        self.arm_faults()
        moment = desk.market_clock.now()
        desk.market_clock.advance(60)
        desk.venue.engine.advance_to(desk.market_clock.now())
        desk.clock.advance(1)  # sixty times speed
        assert desk.market_clock.now() > moment
        await self.hear()
        for symbol in SYMBOLS:
            await desk.service.handlers.position_monitor.on_candle(desk.candle_event(symbol=symbol))
            if rng.random() < 0.5:
                action = rng.choice(["BUY", "SELL"])
                metadata = {"stop_loss_pct": rng.choice([0.1, 0.5]), "take_profit_pct": rng.choice([0.1, 0.6])}
                event = desk.signal_event(action, symbol=symbol, metadata=metadata)
                for _ in range(rng.choice([1, 1, 2])):
                    await desk.service.handlers.order_executor.on_signal(event)
            await self.hear()
        await self.surprise()
        await desk.service.executions.work()
        await desk.service.reconciler.chase()
        await desk.service.reconciler.upkeep()
        await self.hear()

    def arm_faults(self) -> None:
        rng, venue = self.rng, self.desk.venue
        for leg in ("entry", "stop", "take_profit", "exit"):
            if rng.random() < 0.05:
                venue.after.setdefault(f"submit:{leg}", []).append(LOST)
            if rng.random() < 0.05:
                venue.before.setdefault(f"submit:{leg}", []).append(rng.choice((LOST, *REFUSALS)))
        for kind in ("cancel", "find", "leverage"):
            if rng.random() < 0.05:
                venue.before.setdefault(kind, []).append(ConnectionLostError("down"))

    async def hear(self) -> None:
        """Deliver reports: some are lost, some come twice, some change places."""
        while reports := self.desk.venue.inner.take_reports():
            heard: list[VenueReport] = []
            for report in reports:
                heard.extend([report] * self.rng.choices([0, 1, 2], weights=[3, 94, 3])[0])
            if self.rng.random() < 0.1:
                self.rng.shuffle(heard)
            for report in heard:
                try:
                    await self.desk.service.on_report(report)
                except ConnectionLostError:
                    assert not isinstance(report, OrderReport) or report.client_order_id  # the sweep makes up for it

    async def surprise(self) -> None:
        desk, rng = self.desk, self.rng
        if rng.random() < 0.04:
            await self.until_it_works(desk.restart)
        if rng.random() < 0.05:
            await self.until_it_works(desk.service.reconciler.sweep)
        if rng.random() < 0.02:
            symbol = rng.choice(SYMBOLS)
            quantity = desk.venue.engine.contract(symbol).instrument.quantity_for(
                Decimal(300), desk.venue.engine.quote(symbol).last
            )
            side = rng.choice([Side.BUY, Side.SELL])
            desk.venue.engine.place_order(OrderRequest(symbol, side, OrderType.MARKET, quantity))

    async def until_it_works(self, action: Callable[[], Awaitable[None]]) -> None:
        """The live service tries again, too."""
        for _ in range(100):
            try:
                return await action()
            except ConnectionLostError:
                continue
        raise AssertionError("it never worked")

    async def calm_down(self) -> None:
        """No more faults; what is open comes to its end."""
        desk = self.desk
        desk.venue.before, desk.venue.after = {}, {}
        await desk.settle()
        for _ in range(60):
            await desk.tick(1.0)
        for _ in range(3):
            await desk.service.on_report(Reconnected())
        await desk.tick(1.0)
        await desk.settle()


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_the_books_agree_in_the_end(seed: int) -> None:
    chaos = Chaos(seed)

    await chaos.live(150)
    await chaos.calm_down()

    desk = chaos.desk
    assert len(desk.bus.of("position.closed")) > 5
    mismatches = [a.message for a in desk.bus.of("risk.alert") if a.alert_type.endswith("MISMATCH")]
    assert not mismatches, "what the exchange lists must explain everything"
    assert_sound(desk)
    book, _ = refolded([*desk.neighbours, *desk.bus.events], await desk.venue.instruments(), RULES)
    assert {**book.orders} == {**desk.book.orders}
    assert {**book.positions} == {**desk.book.positions}
    assert book.cash == desk.book.cash
