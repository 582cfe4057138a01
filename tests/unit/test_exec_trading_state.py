"""Trading states: the literal table, causes that come and go, and the check that keeps entries back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.from_events import signal_received
from services.exec_risk_service.domain.inputs import (
    SendStarted,
    SignalReceived,
    TradingLifted,
    TradingRestricted,
    TradingResumed,
)
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.step import Step
from services.exec_risk_service.domain.trading_state import (
    ENDINGS,
    MAY,
    TRADING_STATES,
    Authority,
    Move,
    Restriction,
    TradingCause,
    TradingState,
    TradingStatus,
)
from shared.trading.orders import OrderStatus
from tests.support.exec_risk_desk import ACCOUNT, NORMAL, WALL, Desk, desk_on
from tests.support.markets import BTC, flat

CONTEXT = Context(Rules(), NORMAL, {}, WALL)


def restriction(cause: TradingCause = TradingCause.USER_STREAM_LOST, reason: str = "silent for 12 s") -> Restriction:
    return Restriction(cause, reason, "a rule", since=WALL)


def apply(book: Book, item: TradingRestricted | TradingLifted | TradingResumed) -> Step:
    step = decide(book, item, CONTEXT)
    assert step is not None
    return step


async def desk() -> Desk:
    started = desk_on(flat(50_000, 10))
    await started.start()
    await started.candle()
    return started


# -- the table ---------------------------------------------------------------------------------------------------------


def test_every_state_has_every_move_but_what_makes_no_sense() -> None:
    missing = {(s, m) for s in TradingState for m in Move if not TRADING_STATES.allows(s, m)}

    assert missing == {(TradingState.ACTIVE, Move.LIFT), (TradingState.ACTIVE, Move.RESUME)}


def test_only_resume_leaves_halted_and_only_a_person_may() -> None:
    leaving = {m for m in Move if TRADING_STATES.next_state(TradingState.HALTED, m) is not TradingState.HALTED}

    assert leaving == {Move.RESUME}
    assert MAY[Move.RESUME] == {Authority.PERSON}


def test_every_cause_says_how_it_ends() -> None:
    assert set(ENDINGS) == set(TradingCause)


# -- causes ------------------------------------------------------------------------------------------------------------


def test_one_cause_that_is_over_does_not_lift_another() -> None:
    status = TradingStatus().restricted(restriction())
    status = status.restricted(restriction(TradingCause.STALE_DATA, "no candle for 90 s"))

    status = status.lifted(TradingCause.USER_STREAM_LOST, reason="it is back", changed_by="a rule", now=WALL)

    assert (status.state, status.reason) == (TradingState.REDUCING, "no candle for 90 s")
    status = status.lifted(TradingCause.STALE_DATA, reason="candles are back", changed_by="a rule", now=WALL)
    assert (status.state, status.reason) == (TradingState.ACTIVE, "candles are back")


def test_a_halt_outlives_its_cause() -> None:
    status = TradingStatus().restricted(restriction(), halt=True)

    status = status.lifted(TradingCause.USER_STREAM_LOST, reason="it is back", changed_by="a rule", now=WALL)

    assert status.state is TradingState.HALTED


def test_a_person_who_resumes_does_not_wish_away_what_is_still_wrong() -> None:
    status = TradingStatus(losses_in_a_row=4).restricted(restriction(), halt=True)
    status = status.restricted(restriction(TradingCause.DAILY_DRAWDOWN, "drawdown 6 %"))

    status = status.resumed(reason="looked into it", by="ada", now=WALL)

    assert status.state is TradingState.REDUCING
    assert [one.cause for one in status.restrictions] == [TradingCause.USER_STREAM_LOST]
    assert (status.losses_in_a_row, status.changed_by) == (0, "ada")
    assert status.reason == "looked into it; still: silent for 12 s"


# -- steps -------------------------------------------------------------------------------------------------------------


def test_a_restriction_tells_the_change_and_alarms_once() -> None:
    step = apply(Book(ACCOUNT), TradingRestricted(TradingCause.STALE_DATA, "no candle for 90 s", "feed-watch"))

    assert [fact.event_type for fact in step.facts] == ["risk.alert", "trading_state.changed"]
    alert, change = (fact.payload for fact in step.facts)
    assert alert.message == "no candle for 90 s: trading is REDUCING"  # type: ignore[attr-defined]
    assert (change.previous, change.current, change.changed_by) == ("ACTIVE", "REDUCING", "feed-watch")  # type: ignore[attr-defined]
    again = TradingRestricted(TradingCause.STALE_DATA, "no candle for 91 s", "feed-watch")
    assert decide(step.book, again, CONTEXT) is None


def test_a_second_cause_alarms_but_does_not_change_the_state_again() -> None:
    book = apply(Book(ACCOUNT), TradingRestricted(TradingCause.STALE_DATA, "no candle", "feed-watch")).book

    step = apply(book, TradingRestricted(TradingCause.CLOCK_SKEW, "1.2 s off", "clock-watch"))

    assert [fact.event_type for fact in step.facts] == ["risk.alert"]


def test_the_last_cause_that_ends_makes_trading_active_and_tells_it() -> None:
    book = apply(Book(ACCOUNT), TradingRestricted(TradingCause.STALE_DATA, "no candle", "feed-watch")).book

    step = apply(book, TradingLifted(TradingCause.STALE_DATA, "candles are back", "feed-watch"))

    assert [fact.event_type for fact in step.facts] == ["trading_state.changed"]
    assert step.book.trading.denial is None
    assert decide(step.book, TradingLifted(TradingCause.STALE_DATA, "again", "feed-watch"), CONTEXT) is None


def test_a_person_who_resumes_accepts_the_losses_of_the_day() -> None:
    book = Book(ACCOUNT)
    book = replace(book, cash=replace(book.cash, wallet=Decimal(900), day_peak_equity=Decimal(1000)))
    book = apply(book, TradingRestricted(TradingCause.DAILY_DRAWDOWN, "drawdown 10 %", "governor")).book

    step = apply(book, TradingResumed("looked into it", "ada"))

    assert step.book.cash.drawdown(Decimal(900)) == 0
    assert step.book.trading.state is TradingState.ACTIVE
    assert decide(step.book, TradingResumed("again", "ada"), CONTEXT) is None


# -- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [TradingState.REDUCING, TradingState.HALTED])
async def test_entries_are_denied_first_and_exits_pass(state: TradingState) -> None:
    started = await desk()
    await started.signal("BUY")
    assert BTC in started.book.positions
    await started.service.ledger.apply(TradingRestricted(TradingCause.OPERATOR, "hands off", "ada", to=state))

    await started.signal("SELL")
    assert started.book.positions == {}
    await started.signal("BUY")

    assert started.book.positions == {}
    refusal = started.bus.of("execution.result")[-1]
    assert (refusal.rejection_reason or "").startswith(f"trading is {state.value}, ")
    assert (refusal.rejection_reason or "").endswith("hands off")


async def test_an_entry_that_waits_for_its_sending_is_dropped_when_trading_stops() -> None:
    started = await desk()
    ledger = started.service.ledger
    sent = list(started.venue.sent)
    step = decide(ledger.book, _signal(started), ledger.context())
    assert step is not None
    halted = apply(step.book, TradingRestricted(TradingCause.OPERATOR, "hands off", "ada", to=TradingState.HALTED)).book
    [entry] = [order for order in halted.orders.values() if order.leg is Leg.ENTRY]
    dropped = decide(halted, SendStarted(entry.client_order_id), CONTEXT)

    assert dropped is not None
    assert dropped.book.orders[entry.client_order_id].status is OrderStatus.ABSENT
    assert "hands off" in dropped.book.orders[entry.client_order_id].reason
    assert started.venue.sent == sent


def _signal(started: Desk) -> SignalReceived:
    return signal_received(started.signal_event("BUY"))


async def test_the_state_outlives_the_process() -> None:
    started = await desk()
    halt = TradingRestricted(TradingCause.OPERATOR, "hands off", "ada", to=TradingState.HALTED)
    await started.service.ledger.apply(halt)
    started.clock.advance(timedelta(hours=1).total_seconds())

    await started.restart()

    assert started.book.trading.state is TradingState.HALTED
    assert started.book.trading.reason == "hands off"
