"""Between candles: prices, leverage, margin type, nearness of liquidation, margin calls, and advice on exits."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.exec_risk_service.adapters.binance_reports import reports_of, venue_position
from services.exec_risk_service.domain.inputs import PositionMarked
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.reports import LeverageChanged, MarginCalled, OrderInQuestion, OrderReport
from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from shared.events.envelope import Event, EventMetadata
from shared.events.v3 import RlDecisionPayload
from shared.trading.orders import OrderStatus, OrderType, Side
from tests.support.exec_risk_checks import assert_sound, refolded
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, Prices, flat, market
from tests.unit.test_exec_recorded import over_the_wire

RISE: list[Prices] = [*flat(50_000, 2), (50_000, 50_400, 50_000, 50_400), *flat(50_400, 20)]


async def desk_with_position(prices: list[Prices] | None = None) -> Desk:
    desk = await started_desk(prices or flat(50_000, 20))
    await desk.signal("BUY")
    desk.clock.advance(60)
    return desk


def marked(desk: Desk, price: int, **changes: Any) -> PositionMarked:
    position = desk.book.positions[BTC]
    item = PositionMarked(BTC, Decimal(price), None, position.leverage, False, desk.market_clock.now())
    return replace(item, **changes)


def alerts(desk: Desk) -> list[tuple[str, str]]:
    return [(alert.alert_type, alert.severity) for alert in desk.bus.of("risk.alert")]


def state(desk: Desk) -> TradingState:
    status = desk.book.trading.state
    assert isinstance(status, TradingState)
    return status


# -- prices ------------------------------------------------------------------------------------------------------------


async def test_the_sweep_tells_a_price_that_moved_between_two_candles() -> None:
    desk = await desk_with_position(RISE)
    await desk.advance(4)

    await desk.service.reconciler.sweep()

    update, account = desk.bus.of("position.updated")[-1], desk.bus.of("account.updated")[-1]
    assert update.mark_price == 50_400
    assert account.unrealized_pnl_usd == pytest.approx(0.01 * (50_400 - 50_000.5))
    assert_sound(desk)


async def test_small_and_frequent_moves_are_not_told() -> None:
    desk = await desk_with_position()
    ledger = desk.service.ledger

    assert await ledger.apply(marked(desk, 50_020)) is None  # 0.04 %
    assert await ledger.apply(marked(desk, 50_030)) is not None
    assert await ledger.apply(marked(desk, 50_300)) is None  # within five seconds
    desk.clock.advance(5)
    assert await ledger.apply(marked(desk, 50_300)) is not None


async def test_a_price_between_candles_moves_the_stop_and_leaves_the_next_candle_its_place() -> None:
    desk = await desk_with_position([*flat(50_000, 2), (50_000, 51_100, 50_000, 51_100), *flat(51_100, 20)])
    await desk.advance(4)

    await desk.service.ledger.apply(marked(desk, 51_100))
    await desk.settle()

    moved = desk.bus.of("position.updated")[-1].metadata["stop_moved"]
    assert moved["reason"] == "BREAK_EVEN"
    await desk.advance(1)
    before = len(desk.bus.of("position.updated"))
    await desk.candle()
    assert len(desk.bus.of("position.updated")) == before + 1


# -- terms -------------------------------------------------------------------------------------------------------------


async def test_leverage_that_somebody_changed_is_taken_over_from_the_stream() -> None:
    desk = await desk_with_position()

    await desk.service.on_report(LeverageChanged(BTC, 9))

    assert desk.book.positions[BTC].leverage == 9
    assert alerts(desk) == [("EXTERNAL_CHANGE", "MEDIUM")]
    assert "leverage 5 to 9" in desk.bus.of("risk.alert")[0].message


async def test_the_next_entry_sets_its_leverage_again_after_somebody_changed_it() -> None:
    desk = await desk_with_position()
    await desk.signal("SELL")
    desk.venue.engine.set_leverage(BTC, 9)
    await desk.service.on_report(LeverageChanged(BTC, 9))

    await desk.signal("BUY")

    assert desk.venue.engine.position(BTC).leverage == 5


async def test_leverage_and_margin_type_that_somebody_changed_are_taken_over_by_the_sweep() -> None:
    desk = await desk_with_position()
    await desk.service.ledger.apply(marked(desk, 50_100))
    desk.clock.advance(1)

    await desk.service.ledger.apply(marked(desk, 50_100, leverage=3, is_isolated=True))

    position = desk.book.positions[BTC]
    assert (position.leverage, position.protection.is_isolated) == (3, True)
    assert "leverage 5 to 3 and margin type to isolated" in desk.bus.of("risk.alert")[0].message


def test_leverage_follows_from_value_and_margin() -> None:
    row = {"symbol": BTC, "positionAmt": "0.01", "entryPrice": "50000", "markPrice": "50100"}
    shown = {**row, "notional": "501", "positionInitialMargin": "25.05", "liquidationPrice": "41000.5"}

    assert venue_position(shown).leverage == 20
    assert venue_position(shown).liquidation_price == Decimal("41000.5")
    assert venue_position({**shown, "positionInitialMargin": "31.7"}).leverage is None
    assert venue_position({**shown, "isolatedMargin": "12.5"}).is_isolated
    assert venue_position({**row, "liquidationPrice": "0"}).liquidation_price is None


# -- liquidation -------------------------------------------------------------------------------------------------------


async def test_a_liquidation_before_the_stop_is_told_once_and_keeps_entries_back_until_it_is_over() -> None:
    desk = await desk_with_position()
    ledger = desk.service.ledger

    for second in range(3):
        desk.clock.advance(6)
        await ledger.apply(marked(desk, 50_000 + second * 100, liquidation_price=Decimal(49_500)))

    assert alerts(desk) == [("LIQUIDATION_NEAR", "CRITICAL")]
    assert "49500" in desk.bus.of("risk.alert")[0].message
    assert state(desk) is TradingState.REDUCING
    update = desk.bus.of("position.updated")[-1]
    assert update.metadata["liquidation_distance_pct"] == pytest.approx((50_200 / 49_500 - 1) * 100, rel=0.02)

    await ledger.apply(marked(desk, 50_200, liquidation_price=Decimal(41_000)))
    assert state(desk) is TradingState.ACTIVE


async def test_entries_go_on_when_the_position_near_liquidation_is_gone() -> None:
    desk = await desk_with_position()
    await desk.service.ledger.apply(marked(desk, 50_100, liquidation_price=Decimal(49_500)))
    assert desk.book.trading.restriction(TradingCause.LIQUIDATION_NEAR) is not None

    await desk.signal("SELL")

    assert desk.book.trading.state is TradingState.ACTIVE


async def test_a_margin_call_is_critical_and_holds_for_a_minute() -> None:
    desk = await desk_with_position()

    await desk.service.on_report(MarginCalled((BTC,)))
    await desk.service.on_report(MarginCalled((BTC,)))

    assert alerts(desk) == [("MARGIN_CALL", "CRITICAL")]
    assert state(desk) is TradingState.REDUCING
    desk.clock.advance(61)
    await desk.service.ledger.apply(marked(desk, 50_100))
    assert state(desk) is TradingState.ACTIVE


# -- raw events --------------------------------------------------------------------------------------------------------


def test_user_events_that_ccxt_ignores_are_read() -> None:
    config = {"e": "ACCOUNT_CONFIG_UPDATE", "E": 1, "T": 1, "ac": {"s": BTC, "l": 25}}
    assets = {"e": "ACCOUNT_CONFIG_UPDATE", "E": 1, "T": 1, "ai": {"j": True}}
    call = {"e": "MARGIN_CALL", "E": 1, "cw": "3.1", "p": [{"s": BTC, "ps": "BOTH", "pa": "0.01", "mt": "CROSSED"}]}
    reject = {"e": "CONDITIONAL_ORDER_TRIGGER_REJECT", "E": 1, "T": 1, "or": {"s": BTC, "i": 7, "r": "no margin"}}

    assert reports_of(config) == (LeverageChanged(BTC, 25),)
    assert reports_of(assets) == ()
    assert reports_of(call) == (MarginCalled((BTC,)),)
    assert reports_of(reject) == (OrderInQuestion(BTC, "no margin"),)
    assert reports_of({"e": "TRADE_LITE"}) == ()


# -- advice ------------------------------------------------------------------------------------------------------------


async def advise(desk: Desk, *, age_seconds: float = 0, **fields: Any) -> Event[Any]:
    decided = desk.market_clock.now()
    metadata = EventMetadata(
        event_id=f"advice-{len(desk.neighbours)}",
        event_type="rl.decision",
        trace_id="trace-advice",
        causation_id=None,
        timestamp=decided,
        source="ai-service",
        sequence=1,
    )
    payload = RlDecisionPayload(
        **{"decision_type": "dynamic_tpsl", "symbol": BTC, "rl_agent_version": "ppo-7"}
        | {"metadata": {"candle_close_time": decided.isoformat()}}
        | fields
    )
    event: Event[Any] = Event(metadata, payload)
    desk.neighbours.append(event)
    desk.market_clock.advance(age_seconds)
    await desk.service.handlers.position_monitor.on_rl_decision(event)
    await desk.settle()
    return event


async def test_advice_moves_stop_and_target_on_the_exchange() -> None:
    desk = await desk_with_position()

    await advise(desk, stop_loss_pct=1.0, take_profit_pct=3.0, trailing_stop_enabled=False)

    resting = {a.type: a.trigger_price for a in desk.venue.engine.open_algos(BTC)}
    assert resting == {OrderType.STOP_MARKET: Decimal("49500.5"), OrderType.TAKE_PROFIT_MARKET: Decimal("51500.5")}
    told = desk.bus.of("position.updated")[-1].metadata
    assert told["stop_moved"] == {"from": "49000.5", "to": "49500.5", "reason": "ADVICE"}
    assert (told["advised_by"], told["trailing_stop_active"]) == ("ppo-7", False)
    assert_sound(desk)


@pytest.mark.parametrize(
    ("fields", "age", "reason"),
    [({"stop_loss_pct": 30.0}, 0, "outside of"), ({"stop_loss_pct": 1.0}, 301, "301 s old")],
)
async def test_advice_is_refused_with_a_reason(fields: dict[str, float], age: float, reason: str) -> None:
    desk = await desk_with_position()

    await advise(desk, age_seconds=age, **fields)

    assert reason in desk.bus.of("position.updated")[-1].metadata["advice_refused"]
    assert len(desk.orders(Leg.STOP)) == 1
    assert_sound(desk)


async def test_advice_is_applied_once_and_leaves_alone_what_it_is_not_for() -> None:
    desk = await started_desk(flat(50_000, 20))
    before = desk.book
    await advise(desk, stop_loss_pct=1.0)
    await advise(desk, decision_type="position_sizing", recommended_size_usd=10.0)
    assert desk.book is before

    await desk.signal("BUY")
    event = await advise(desk, stop_loss_pct=1.0)
    once = desk.book
    await desk.service.handlers.position_monitor.on_rl_decision(event)
    assert desk.book is once


async def test_what_happens_between_candles_is_replayed_from_the_events() -> None:
    desk = await desk_with_position()
    await advise(desk, stop_loss_pct=1.0)
    await desk.service.ledger.apply(marked(desk, 50_100, liquidation_price=Decimal(49_600)))
    await desk.service.on_report(LeverageChanged(BTC, 9))
    await desk.service.on_report(MarginCalled((BTC,)))
    await desk.signal("SELL")

    book, _ = refolded(over_the_wire([*desk.neighbours, *desk.bus.events]), await desk.venue.instruments())

    assert (book.cash, {**book.positions}, book.trading) == (desk.book.cash, {}, desk.book.trading)
    assert {**book.orders} == {**desk.book.orders}


async def test_a_condition_that_fired_and_was_refused_means_a_market_exit() -> None:
    desk = await desk_with_position()
    stop = desk.orders(Leg.STOP)[0]
    refused = OrderReport(
        stop.client_order_id, BTC, OrderStatus.REJECTED, desk.market_clock.now(), algo_id=stop.algo_id, reason="margin"
    )

    await desk.service.on_report(replace(refused, status=OrderStatus.TRIGGERED))
    await desk.service.on_report(refused)
    await desk.settle()

    assert alerts(desk) == [("STOP_NOT_PLACED", "CRITICAL")]
    assert desk.bus.of("position.closed")[0].exit_reason == "STOP_LOSS"


async def test_auto_deleveraging_reduces_the_position_and_its_stop_and_is_told() -> None:
    desk = await desk_with_position()
    desk.venue.engine.place_order(market(Side.SELL, "0.004", client_order_id="adl_autoclose"))

    await desk.settle()
    await desk.tick()

    assert [o.order_type for o in desk.bus.of("order.updated") if o.metadata["leg"] == "external"] == ["ADL"]
    assert alerts(desk) == [("FORCED_CLOSE", "CRITICAL")]
    assert "reduced by auto-deleveraging" in desk.bus.of("risk.alert")[0].message
    assert desk.book.positions[BTC].size == Decimal("0.006")
    assert_sound(desk)


async def test_a_clock_of_another_market_makes_no_position_old() -> None:
    desk = await desk_with_position()

    await desk.service.ledger.apply(marked(desk, 50_100, time=desk.market_clock.now() + timedelta(days=300)))

    assert desk.book.positions[BTC].exit is None
    assert desk.book.positions[BTC].stop_price == Decimal("49000.5")
