"""What must hold on a desk whenever nothing is under way, and the fold of what its events recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.positions import Origin
from services.exec_risk_service.domain.recorded import recorded_inputs
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.step import Step
from shared.events.envelope import Event
from shared.ids import client_order_id
from shared.trading.instruments import Instrument
from shared.trading.orders import OrderType
from tests.support.exec_risk_desk import ACCOUNT, NORMAL, Desk


def assert_sound(desk: Desk) -> None:
    """Check what must hold whenever nothing is under way: books agree, no order doubled, nothing naked, one tree."""
    book, engine = desk.book, desk.venue.engine
    for symbol in engine.symbols:
        position = book.positions.get(symbol)
        ours = position.net.quantity if position else Decimal(0)
        assert ours == engine.position(symbol).quantity, f"{symbol}: {ours} != {engine.position(symbol).quantity}"
        assert sum(record.fill.signed_quantity for record in engine.fills(symbol)) == ours
        _assert_protected(desk, symbol)
    assert book.cash.wallet == engine.account().wallet
    assert book.cash.expected_wallet == book.cash.wallet
    _assert_one_order_per_intent(desk)
    assert_one_tree_per_trace(desk.bus.events)


def _assert_protected(desk: Desk, symbol: str) -> None:
    position = desk.book.positions.get(symbol)
    resting = desk.venue.engine.open_algos(symbol)
    stops = [algo for algo in resting if algo.type is OrderType.STOP_MARKET]
    if position is None:
        assert not resting, f"{symbol} is flat but has {resting}"
        return
    if position.origin is Origin.SIGNAL or position.stop_price is not None:
        assert [stop.quantity for stop in stops] == [position.size], f"{position}: {stops}"
    assert len(resting) <= 2


def _assert_one_order_per_intent(desk: Desk) -> None:
    engine = desk.venue.engine
    sent = [order.client_order_id for s in engine.symbols for order in engine.orders(s) if order.algo_id is None]
    sent += [algo.client_algo_id for symbol in engine.symbols for algo in engine.algos(symbol)]
    ours = [name for name in sent if name.startswith("qt3-")]
    assert len(ours) == len(set(ours)), "an intent was sent twice"
    assert len(desk.venue.sent) == len(set(desk.venue.sent)), "a request was repeated"
    assert set(ours) <= _intents(desk), "an order on the exchange has no intent"


def _intents(desk: Desk) -> set[str]:
    """Return the client order ids of all intents; the book alone forgets old ones."""
    if desk.store is None:
        return set(desk.book.orders)
    return {client_order_id(*intent) for intent in desk.store.accounts[ACCOUNT].intents}


def assert_one_tree_per_trace(events: Sequence[Event[Any]], *, in_order: bool = True) -> None:
    """Check that every cause is an earlier event of the same trace, or comes from outside exec-risk.

    A crash may publish an event again, but only the same one under the same id. Events that were read from several
    streams are not ``in_order``.
    """
    by_id = {event.metadata.event_id: event for event in events}
    trace_of = {name: event.metadata.trace_id for name, event in by_id.items()}
    assert all(by_id[event.metadata.event_id].payload == event.payload for event in events), "two events have one id"
    seen: set[str] = set()
    for event in events:
        cause = event.metadata.causation_id
        if cause in trace_of:
            assert cause in seen or not in_order, f"{event.metadata.event_type} comes before its cause"
            assert trace_of[cause] == event.metadata.trace_id, f"{event.metadata.event_type} left its trace"
        seen.add(event.metadata.event_id)


def refolded(
    events: Sequence[Event[Any]], instruments: Mapping[str, Instrument], rules: Rules | None = None
) -> tuple[Book, list[Step]]:
    """Fold the inputs that ``events`` recorded under ``rules``; return the last book and all steps."""
    book, steps = Book(ACCOUNT), []
    for recorded in recorded_inputs(events):
        assert recorded.policy_mode is NORMAL.mode
        book = replace(book, step=recorded.step - 1)  # steps that only moved a reading point tell no event
        step = decide(book, recorded.item, recorded.context(rules or Rules(), NORMAL, instruments))
        assert step is not None
        steps.append(step)
        book = step.book
    return book, steps
