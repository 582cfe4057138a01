"""Recorded events of a live run through exec-risk again: same inputs, same order, so the same intents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.decide import decide
from services.exec_risk_service.domain.inputs import WalletObserved
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.recorded import RecordedInput, recorded_inputs
from services.exec_risk_service.domain.rules import Context, Rules
from services.exec_risk_service.domain.step import Step
from shared.errors import InvalidInputError
from shared.events.envelope import Event
from shared.trading.instruments import Instrument
from shared.trading.orders import OrderStatus
from shared.trading.policy import DEFAULT_POLICIES, PolicyState

#: An intent begins unsent; an order of the emergency stop is on its way when the book hears of it.
_BEGINNINGS = (OrderStatus.INITIALIZED, OrderStatus.SUBMITTED)


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What replaying a recording gave.

    Attributes:
        inputs: Inputs that were applied.
        intents: Every order that exec-risk decided to send, in order, as it was at its first commit.
        book: The account after the last input.
    """

    inputs: int
    intents: tuple[Order, ...]
    book: Book


def replay_recording(
    events: Iterable[Event[Any]], *, instruments: Mapping[str, Instrument], rules: Rules
) -> RecordedRun:
    """Fold the inputs that ``events`` recorded into a fresh book.

    Args:
        events: Archived events of one run, in any order.
        instruments: Filters by venue symbol, as the exchange of the recording gave them.
        rules: Limits of the installation that recorded.

    Raises:
        InvalidInputError: The recording has a hole, or leads to another step than it did live.
    """
    inputs = recorded_inputs(events)
    _require_start(inputs)
    book = Book(inputs[0].account)
    intents: list[Order] = []
    for recorded in inputs:
        # Steps that told nobody (a confirmed trade id) are not recorded; they only move the counter.
        book = replace(book, step=recorded.step - 1)
        step = decide(book, recorded.item, _context(recorded, instruments, rules))
        if step is None:
            raise InvalidInputError(
                f"replay left the recording at step {recorded.step}: {type(recorded.item).__name__} changed nothing "
                "here; was it recorded by another version or with other limits?"
            )
        intents += new_intents(step)
        book = step.book
    return RecordedRun(len(inputs), tuple(intents), book)


def new_intents(step: Step) -> list[Order]:
    """Return the orders that ``step`` decided to send, or that the emergency stop sends; others begin later."""
    return [order for order in step.orders if order.created_step == step.number and order.status in _BEGINNINGS]


def _require_start(inputs: Sequence[RecordedInput]) -> None:
    """An account begins with the wallet that the exchange tells at the first recovery."""
    if not inputs or not isinstance(inputs[0].item, WalletObserved):
        began = f"step {inputs[0].step}, {type(inputs[0].item).__name__}" if inputs else "no input of exec-risk"
        raise InvalidInputError(f"the recording begins with {began}; it must cover the run from its first event")
    accounts = sorted({recorded.account for recorded in inputs})
    if len(accounts) > 1:
        raise InvalidInputError(f"the recording holds more than one account: {', '.join(accounts)}; record one run")


def _context(recorded: RecordedInput, instruments: Mapping[str, Instrument], rules: Rules) -> Context:
    # Only mode and version are recorded; a mode's values are those of this version of the software.
    policy = PolicyState(recorded.policy_mode, DEFAULT_POLICIES[recorded.policy_mode], recorded.policy_version)
    return recorded.context(rules, policy, instruments)
