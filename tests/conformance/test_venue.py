"""What every exchange behind exec-risk's ports must do: the engine in process, and the same engine through ccxt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.replay.engine_venue import EngineVenue
from services.exec_risk_service.adapters.ccxt_venue import CcxtReportStream, CcxtVenue
from services.exec_risk_service.app import Venue
from services.exec_risk_service.domain.account_terms import refusals
from services.exec_risk_service.domain.orders import Leg, Order, Provenance
from services.exec_risk_service.domain.reports import CashChanged, CashKind, OrderReport, VenueReport
from services.exec_risk_service.ports import OrderRef, ref_of
from shared.clock import ManualClock
from shared.errors import OrderRejectedError, OutcomeUnknownError, TransientError
from shared.exchange.client import create_exchange
from shared.trading.orders import OrderStatus, OrderType, Side
from shared.trading.positions import Fill
from tests.support.eventually import eventually
from tests.support.exchanges import paper_exchange
from tests.support.markets import BTC, START, Prices, WrittenSource, flat

PRICES: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 600)]
FUNDING = START + timedelta(hours=7)  # 08:00 UTC


@dataclass(slots=True)
class Stage:
    """An exchange, what it reported so far, and a way to let its market run."""

    venue: Venue
    engine: MatchingEngine
    collect: Callable[[], list[VenueReport]]
    announce: Callable[[], None]
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    reports: list[VenueReport] = field(default_factory=list)

    def run_until(self, minutes: float) -> None:
        moment = START + timedelta(minutes=minutes)
        self.engine.advance_to(moment)
        self.clock.advance_to(moment)
        self.announce()

    async def told(self, wanted: Callable[[VenueReport], bool]) -> list[VenueReport]:
        """Wait until a report fulfils ``wanted``; return all reports so far."""

        def heard() -> bool:
            self.reports.extend(self.collect())
            return any(map(wanted, self.reports))

        await eventually(heard, what="report")
        return self.reports


@asynccontextmanager
async def engine_stage() -> AsyncIterator[Stage]:
    engine = MatchingEngine(WrittenSource(PRICES, volume=100_000.0), start=START, wallet=Decimal(10_000))
    venue = EngineVenue(engine)
    yield Stage(venue, engine, venue.take_reports, lambda: None)


@asynccontextmanager
async def ccxt_stage() -> AsyncIterator[Stage]:
    async with paper_exchange(WrittenSource(PRICES, volume=100_000.0)) as exchange:
        exchange.live.freeze(frozen=True)
        client = create_exchange("paper", base_url=exchange.url, api_key="paper", secret="paper")
        stream = CcxtReportStream(client)
        await stream.start()
        heard: list[VenueReport] = []

        async def listen() -> None:
            async for report in stream.reports():
                heard.append(report)  # noqa: PERF401 - an endless stream

        listener = asyncio.create_task(listen())

        def collect() -> list[VenueReport]:
            new = heard[:]
            heard.clear()
            return new

        clock = ManualClock(START)
        venue = CcxtVenue(client, clock)
        yield Stage(venue, exchange.live.engine, collect, exchange.live.send_events, clock)
        listener.cancel()
        await stream.stop()
        await client.close()


@pytest.fixture(params=["engine", "ccxt"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with engine_stage() if request.param == "engine" else ccxt_stage() as made:
        yield made


def order(name: str = "one", side: Side = Side.BUY, quantity: str = "0.01", *, leg: Leg = Leg.ENTRY) -> Order:
    return Order(
        client_order_id=f"qt3-{name}",
        cause_event_id="signal",
        leg=leg,
        sequence=1,
        symbol=BTC,
        side=side,
        order_type=OrderType.MARKET,
        quantity=Decimal(quantity),
        trigger_price=None,
        leverage=5,
        arrival_price=Decimal(50_000),
        position_id="position",
        provenance=Provenance("trace", "first", "trace"),
        created_step=1,
        created_at=START,
    )


def stop(name: str = "stop", trigger: str = "49000.0", quantity: str = "0.010") -> Order:
    base = order(name, Side.SELL, quantity, leg=Leg.STOP)
    return replace(base, order_type=OrderType.STOP_MARKET, trigger_price=Decimal(trigger))


def is_fill_of(name: str) -> Callable[[VenueReport], bool]:
    return lambda report: (
        isinstance(report, OrderReport) and report.client_order_id == f"qt3-{name}" and report.fill is not None
    )


def fills_in(reports: list[VenueReport]) -> list[Fill]:
    return [report.fill for report in reports if isinstance(report, OrderReport) and report.fill is not None]


async def test_past_candles_are_the_closed_ones_oldest_first(stage: Stage) -> None:
    stage.run_until(4.5)
    start, end = START + timedelta(minutes=1), START + timedelta(minutes=10)

    found = await stage.venue.candles(BTC, "1m", start, end)

    assert [candle.open_time - START for candle in found] == [timedelta(minutes=number) for number in (1, 2, 3)]
    assert [candle.close for candle in found] == [50_000.0, 50_000.0, 48_000.0]
    assert await stage.venue.candles(BTC, "1m", end, end) == ()
    with pytest.raises(TransientError):
        await stage.venue.candles("NOSUCHUSDT", "1m", start, end)


async def test_a_market_order_is_answered_with_its_fill_and_reported_with_every_number(stage: Stage) -> None:
    answer = await stage.venue.submit(order())

    assert (answer.client_order_id, answer.status) == ("qt3-one", OrderStatus.FILLED)
    assert answer.filled_quantity == Decimal("0.01")
    fill = fills_in(await stage.told(is_fill_of("one")))[0]
    assert fill.exchange_order_id == answer.exchange_order_id
    assert (fill.trade_id, fill.side, fill.price, fill.quantity) == (1, Side.BUY, Decimal("50000.5"), Decimal("0.01"))
    assert fill.commission == Decimal("0.01") * Decimal("50000.5") * Decimal("0.0005")
    assert abs(fill.time - stage.engine.now) < timedelta(milliseconds=1)


async def test_the_list_of_trades_tells_the_same_fills_as_the_stream(stage: Stage) -> None:
    await stage.venue.submit(order("one"))
    await stage.venue.submit(order("two", Side.SELL, "0.004"))
    reported = fills_in(await stage.told(is_fill_of("two")))

    listed = await stage.venue.fills_after(BTC, 0)

    assert [replace(fill, client_order_id="") for fill in reported] == [
        replace(fill, client_order_id="") for fill in listed
    ]
    assert await stage.venue.fills_after(BTC, listed[0].trade_id) == listed[1:]
    assert (await stage.venue.fills_after(BTC, None))[-1] == listed[-1]


async def test_a_refusal_is_definitive_and_names_its_code(stage: Stage) -> None:
    with pytest.raises(OrderRejectedError) as refused:
        await stage.venue.submit(order(quantity="50"))

    assert refused.value.code == -2019
    assert await stage.venue.find_order(ref_of(order())) is None


async def test_a_reduce_only_order_without_a_position_is_refused(stage: Stage) -> None:
    with pytest.raises(OrderRejectedError) as refused:
        await stage.venue.submit(order(side=Side.SELL, leg=Leg.EXIT))

    assert refused.value.code == -2022


async def test_a_reduce_only_order_never_flips(stage: Stage) -> None:
    await stage.venue.submit(order())

    await stage.venue.submit(order("out", Side.SELL, "0.5", leg=Leg.EXIT))

    assert (await stage.venue.account()).positions == ()


async def test_a_position_on_borrowed_money_has_a_price_of_liquidation(stage: Stage) -> None:
    await stage.venue.set_leverage(BTC, 20)
    await stage.venue.submit(order(quantity="3.5"))

    position = (await stage.venue.account()).positions[0]

    assert position.leverage == 20
    assert position.liquidation_price is not None
    assert Decimal(46_000) < position.liquidation_price < position.entry_price  # 10,000 USDT behind 175,000


async def test_a_stop_rests_and_is_listed_and_found_by_our_id(stage: Stage) -> None:
    await stage.venue.submit(order())

    answer = await stage.venue.submit(stop())

    assert (answer.status, answer.is_algo) == (OrderStatus.NEW, True)
    listed = await stage.venue.open_orders()
    assert [(o.client_order_id, o.order_type, o.trigger_price, o.quantity) for o in listed] == [
        ("qt3-stop", OrderType.STOP_MARKET, Decimal(49_000), Decimal("0.01"))
    ]
    found = await stage.venue.find_order(ref_of(stop()))
    assert found is not None
    assert (found.status, found.algo_id) == (OrderStatus.NEW, answer.algo_id)


async def test_a_stop_that_is_reached_closes_the_position_under_our_id(stage: Stage) -> None:
    await stage.venue.submit(order())
    await stage.venue.submit(stop())

    stage.run_until(4)

    reports = await stage.told(lambda r: isinstance(r, OrderReport) and r.is_algo and r.filled_quantity > 0)
    assert [fill.client_order_id for fill in fills_in(reports)] == ["qt3-one", "qt3-stop"]
    assert (await stage.venue.account()).positions == ()
    found = await stage.venue.find_order(ref_of(stop()))
    assert found is not None
    assert found.status is OrderStatus.FILLED
    assert found.exchange_order_id == fills_in(reports)[-1].exchange_order_id


async def test_a_stop_beyond_the_price_is_refused(stage: Stage) -> None:
    await stage.venue.submit(order())

    with pytest.raises(OrderRejectedError) as refused:
        await stage.venue.submit(stop(trigger="51000.0"))

    assert refused.value.code == -2021


async def test_a_second_order_under_an_open_id_is_no_answer(stage: Stage) -> None:
    await stage.venue.submit(order())
    await stage.venue.submit(stop())

    with pytest.raises(OutcomeUnknownError) as unknown:
        await stage.venue.submit(stop())

    assert unknown.value.code == -4116
    assert len(await stage.venue.open_orders()) == 1


async def test_a_resting_stop_can_be_cancelled_once(stage: Stage) -> None:
    await stage.venue.submit(order())
    await stage.venue.submit(stop())

    gone = await stage.venue.cancel(ref_of(stop()))

    assert (gone.client_order_id, gone.status) == ("qt3-stop", OrderStatus.CANCELED)
    assert await stage.venue.open_orders() == ()
    with pytest.raises(OutcomeUnknownError):  # it may have filled meanwhile: look it up
        await stage.venue.cancel(ref_of(stop()))


async def test_orders_are_found_by_either_id_and_unknown_ones_are_not(stage: Stage) -> None:
    answer = await stage.venue.submit(order())

    by_ours = await stage.venue.find_order(ref_of(order()))
    by_theirs = await stage.venue.find_order(OrderRef(BTC, exchange_order_id=answer.exchange_order_id))

    assert by_ours is not None
    assert by_ours == by_theirs
    assert by_ours.filled_quantity == Decimal("0.01")
    assert await stage.venue.find_order(OrderRef(BTC, "qt3-never")) is None
    assert await stage.venue.find_order(OrderRef(BTC, "qt3-never", is_algo=True)) is None
    assert await stage.venue.find_order(OrderRef(BTC, exchange_order_id="99")) is None


async def test_the_account_shows_wallet_and_positions(stage: Stage) -> None:
    await stage.venue.set_leverage(BTC, 7)
    bid = stage.engine.quote(BTC).bid.price
    await stage.venue.submit(order(side=Side.SELL))

    account = await stage.venue.account()

    assert account.wallet_balance == stage.engine.account().wallet
    position = account.positions[0]
    assert (position.symbol, position.quantity) == (BTC, Decimal("-0.01"))
    assert position.entry_price == bid
    assert position.mark_price > 0
    assert (position.leverage, position.is_isolated) == (7, False)
    assert stage.engine.position(BTC).leverage == 7


async def test_a_leverage_out_of_range_is_refused(stage: Stage) -> None:
    with pytest.raises(OrderRejectedError) as refused:
        await stage.venue.set_leverage(BTC, 126)

    assert refused.value.code == -4028


async def test_funding_is_announced_and_listed_once(stage: Stage) -> None:
    await stage.venue.submit(order())

    stage.run_until(7 * 60 + 1)

    await stage.told(lambda report: isinstance(report, CashChanged))
    payments = await stage.venue.payments_since(START)
    assert [(p.kind, p.symbol, p.time) for p in payments] == [(CashKind.FUNDING, BTC, FUNDING)]
    assert stage.engine.account().wallet == 10_000 + payments[0].amount - sum(
        record.fill.commission for record in stage.engine.fills(BTC)
    )
    assert await stage.venue.payments_since(FUNDING) == payments


async def test_the_terms_tell_filters_leverage_and_mode(stage: Stage) -> None:
    instruments = await stage.venue.instruments()

    instrument = instruments[BTC]
    assert (instrument.tick_size, instrument.lot_step) == (Decimal("0.1"), Decimal("0.001"))
    assert (instrument.min_notional, instrument.max_leverage) == (Decimal(100), 125)
    assert instrument == stage.engine.contract(BTC).instrument
    assert refusals(await stage.venue.account_terms()) == ()
