"""The events of a run hold everything that happened to the account: folded again they give the same account."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.exec_risk_service.domain.recorded import recorded_inputs
from shared.errors import InvalidInputError, OrderRejectedError, OutcomeUnknownError
from shared.events.codec import decode, encode
from shared.events.envelope import Event
from tests.support.exec_risk_checks import refolded
from tests.support.exec_risk_desk import Desk, desk_on
from tests.support.markets import Prices, flat

PRICES: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 30)]


async def eventful_run() -> tuple[Desk, list[Event[Any]]]:
    """Return a desk after entries, a stop, a lost answer, refusals and an exit, and all events of its bus."""
    desk = desk_on(PRICES)
    await desk.start()
    await desk.candle()
    await desk.signal("BUY")
    await desk.advance(4)
    await desk.candle()
    desk.venue.after["submit:entry"] = [OutcomeUnknownError("lost", http_status=503)]
    await desk.signal("SELL")
    desk.venue.before["submit:exit"] = [OrderRejectedError("code -1008", code=-1008, http_status=503)]
    await desk.signal("BUY")
    await desk.tick(2)
    await desk.signal("BUY", confidence=0.1)
    return desk, [*desk.neighbours, *desk.bus.events]


def over_the_wire(events: list[Event[Any]]) -> list[Event[Any]]:
    """Return the events as an archive gives them back."""
    return [decode({name.encode(): value for name, value in encode(event).items()}) for event in events]


async def test_recorded_events_give_the_same_intents_fills_and_money() -> None:
    desk, events = await eventful_run()
    instruments = await desk.venue.instruments()

    book, steps = refolded(over_the_wire(events), instruments)

    assert {**book.orders} == {**desk.book.orders}
    assert {**book.positions} == {**desk.book.positions}
    assert book.cash == desk.book.cash
    told = [fact for step in steps for fact in step.facts]
    published = {event.metadata.event_id: event.payload for event in desk.bus.events}
    assert {fact.event_id: fact.payload for fact in told} == published


async def test_inputs_are_plain_json_with_exact_numbers() -> None:
    desk, _ = await eventful_run()

    inputs = [e.payload.metadata["input"] for e in desk.bus.events if "input" in e.payload.metadata]

    assert orjson.loads(orjson.dumps(inputs)) == inputs
    kinds = {written["kind"] for written in inputs}
    assert kinds >= {"SignalReceived", "CandleClosed", "SendStarted", "SendRefused", "AnswerLost", "OrderReport"}
    fills = [w["body"]["fill"] for w in inputs if w["kind"] == "OrderReport" and w["body"]["fill"]]
    assert all(isinstance(fill["price"], str) for fill in fills)


async def test_a_missing_signal_is_named() -> None:
    _, events = await eventful_run()
    signal = next(e for e in events if e.metadata.event_type == "signal.generated")

    with pytest.raises(InvalidInputError, match=signal.metadata.event_id):
        recorded_inputs([event for event in events if event is not signal])
