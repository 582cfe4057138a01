"""The Safety Governor: one test per row of its table, one alarm per cause, and what ends each."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.exec_risk_service.domain.governor import TRIGGERS
from services.exec_risk_service.domain.governor_rules import GovernorRules
from services.exec_risk_service.domain.inputs import PositionObserved, StopReported, StopRequested, TradingResumed
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from shared.errors import OrderRejectedError, OutcomeUnknownError
from tests.support.exec_risk_checks import refolded
from tests.support.exec_risk_desk import Desk, desk_on, started_desk
from tests.support.markets import BTC, Prices, flat

#: 50,000 for three minutes, then a fall by 1 % each minute.
FALLING: list[Prices] = [
    *flat(50_000, 3),
    *((50_000 * 0.99**n, 50_000 * 0.99**n, 50_000 * 0.99 ** (n + 1), 50_000 * 0.99 ** (n + 1)) for n in range(60)),
]


def rules(**changes: Any) -> Rules:
    return Rules(governor=GovernorRules(**changes))


def alerts(desk: Desk) -> list[str]:
    return [alert.alert_type for alert in desk.bus.of("risk.alert")]


async def lose(desk: Desk, amount: int) -> None:
    """Take money off the exchange's wallet, as losses would."""
    desk.venue.engine._account.wallet -= amount
    await desk.service.reconciler.sweep()
    await desk.service.reconciler.sweep()
    await desk.candle_later()


async def trade_once(desk: Desk) -> None:
    """Open and close a position: without a move of the price it costs the fees."""
    await desk.signal("BUY")
    await desk.signal("SELL")


# -- rows --------------------------------------------------------------------------------------------------------------


def test_every_row_names_a_threshold_that_there_is() -> None:
    for trigger in TRIGGERS:
        owner: Any = Rules()
        for part in trigger.threshold.split("."):
            owner = getattr(owner, part)


async def test_the_daily_drawdown_keeps_entries_back_with_the_numbers_and_one_alarm() -> None:
    desk = await started_desk(flat(50_000, 30))

    await lose(desk, 600)
    await lose(desk, 100)

    assert desk.book.trading.state == "REDUCING"
    assert alerts(desk).count("DRAWDOWN_LIMIT") == 1
    [alert] = [alert for alert in desk.bus.of("risk.alert") if alert.alert_type == "DRAWDOWN_LIMIT"]
    assert alert.severity == "CRITICAL"
    assert "6.00 %" in alert.message
    assert "5.00 %" in alert.message


async def test_the_drawdown_ends_with_the_market_day() -> None:
    desk = await started_desk(flat(50_000, 1500))
    await lose(desk, 600)

    await desk.advance(24 * 60)
    await desk.candle()

    assert desk.book.trading.state == "ACTIVE"
    assert desk.bus.of("trading_state.changed")[-1].reason.startswith("a new day, ")


async def test_a_deep_drawdown_is_an_emergency_stop() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")

    await lose(desk, 1600)

    assert desk.book.trading.state is TradingState.HALTED
    [event] = desk.bus.of("emergency.stop")
    assert event.drawdown_pct == pytest.approx(16, abs=0.1)
    assert event.manual_intervention_required
    assert desk.venue.engine.position(BTC).quantity == 0
    assert desk.venue.engine.open_algos(BTC) == []
    assert desk.book.trading.stop.verified_at is not None


async def test_the_daily_drawdown_may_be_an_emergency_stop_when_that_is_wanted() -> None:
    desk = await started_desk(flat(50_000, 30), rules=rules(stop_at_daily_drawdown=True))

    await lose(desk, 600)

    assert desk.book.trading.state is TradingState.HALTED


async def test_losses_in_a_row_are_an_emergency_stop() -> None:
    desk = await started_desk(flat(50_000, 30))
    for number in range(4):
        await trade_once(desk)
        assert desk.book.trading.losses_in_a_row == number + 1
    assert desk.bus.of("emergency.stop") == []

    await trade_once(desk)

    [event] = desk.bus.of("emergency.stop")
    assert event.consecutive_losses == 5
    assert event.trigger_reason == "5 losing positions in a row; the emergency stop is at 5"
    assert desk.book.trading.state is TradingState.HALTED


async def test_a_gain_ends_the_row() -> None:
    prices: list[Prices] = [*flat(50_000, 3), (50_000, 51_000, 50_000, 51_000), *flat(51_000, 10)]
    desk = await started_desk(prices)
    await trade_once(desk)
    await desk.signal("BUY")
    await desk.advance(5)

    await desk.signal("SELL")

    assert desk.book.trading.losses_in_a_row == 0


async def test_refusals_in_quick_succession_keep_entries_back_until_they_cease() -> None:
    desk = await started_desk(flat(50_000, 60), rules=rules(storm_count=3))
    refusal = [OrderRejectedError("-2019 Margin is insufficient.", code=-2019, http_status=400) for _ in range(3)]
    desk.venue.before["submit:entry"] = [*refusal]
    for _ in range(3):
        await desk.signal("BUY")
        await desk.advance(0.1)

    assert desk.book.trading.state == "REDUCING"
    assert alerts(desk).count("REJECT_STORM") == 1
    assert "refused 3 orders within 60 s" in desk.book.trading.reason
    await desk.advance(6)
    await desk.candle()
    assert desk.book.trading.state == "ACTIVE"


async def test_unknown_outcomes_that_pile_up_keep_entries_back_until_all_is_known() -> None:
    desk = await started_desk(flat(50_000, 60), rules=rules(unknown_outcomes=1))
    desk.venue.after["submit:entry"] = [OutcomeUnknownError("timeout")]
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))

    assert desk.book.trading.state == "REDUCING"
    assert alerts(desk).count("UNKNOWN_OUTCOMES") == 1
    await desk.settle()
    assert desk.book.trading.state == "ACTIVE"


@pytest.mark.parametrize(("quantity", "state"), [("0.01", TradingState.REDUCING), ("0.06", TradingState.HALTED)])
async def test_a_position_that_differs_keeps_entries_back_or_halts(quantity: str, state: TradingState) -> None:
    desk = await started_desk(flat(50_000, 30))

    seen = PositionObserved(BTC, Decimal(quantity), Decimal(50_000), Decimal(50_000), desk.market_clock.now())
    await desk.service.ledger.apply(seen)

    assert desk.book.trading.state is state
    assert alerts(desk).count("POSITION_MISMATCH") == 1
    assert desk.book.trading.restriction(TradingCause.POSITION_MISMATCH) is not None


async def test_a_position_that_was_there_before_the_record_began_is_no_mismatch() -> None:
    desk = desk_on(flat(50_000, 30))
    desk.venue.engine.set_leverage(BTC, 1)
    await desk.service.ledger.load({})

    seen = PositionObserved(BTC, Decimal("0.01"), Decimal(50_000), Decimal(50_000), desk.market_clock.now())
    await desk.service.ledger.apply(seen)

    assert desk.book.trading.state == "ACTIVE"


async def test_a_governor_that_is_off_changes_nothing() -> None:
    desk = await started_desk(flat(50_000, 30), rules=rules(is_enabled=False))

    await lose(desk, 2000)

    assert desk.book.trading.state == "ACTIVE"
    await desk.signal("BUY")
    assert desk.book.positions == {}


# -- stop and resume ---------------------------------------------------------------------------------------------------


async def test_a_stop_that_is_asked_for_twice_is_one_stop() -> None:
    desk = await started_desk(flat(50_000, 30))

    await desk.service.ledger.apply(StopRequested("one", "hands off", "ada"))
    await desk.service.ledger.apply(StopRequested("two", "me too", "bob"))

    assert len(desk.bus.of("emergency.stop")) == 1
    assert desk.book.trading.stop.stop_id == "one"


async def test_what_is_reported_of_another_stop_changes_nothing() -> None:
    desk = await started_desk(flat(50_000, 30))

    assert await desk.service.ledger.apply(StopReported("one", "all is well", is_flat=True)) is None


async def test_a_stop_that_a_person_ended_does_not_come_back() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.service.ledger.apply(StopRequested("one", "hands off", "ada"))
    await desk.service.ledger.apply(TradingResumed("looked into it", "ada"))

    assert await desk.service.ledger.apply(StopRequested("one", "hands off", "ada")) is None
    assert desk.book.trading.state == "ACTIVE"


async def test_what_the_governor_did_is_replayed_alike() -> None:
    desk = await started_desk(flat(50_000, 60), rules=Rules())
    for _ in range(5):
        await trade_once(desk)
        desk.clock.advance(timedelta(seconds=1).total_seconds())
    assert desk.book.trading.state is TradingState.HALTED

    book, _ = refolded([*desk.bus.events, *desk.neighbours], desk.service.ledger.instruments)

    assert book.trading == desk.book.trading
