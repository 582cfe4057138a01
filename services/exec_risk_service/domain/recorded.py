"""Inputs written into the events that they cause, and read back: recorded events sorted by step replay the account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from pydantic import TypeAdapter

from services.exec_risk_service.domain.from_events import candle_closed, signal_received
from services.exec_risk_service.domain.inputs import CandleClosed, Input, SignalReceived
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.rules import Context, Rules
from shared.errors import InvalidInputError
from shared.events.envelope import Event
from shared.trading.instruments import Instrument
from shared.trading.policy import PolicyState, RiskMode

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Input)}
_QUOTE = TypeAdapter(Quote)
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in _KINDS.values() if kind not in (SignalReceived, CandleClosed)
}


@dataclass(frozen=True, slots=True)
class RecordedInput:
    """One input as it was applied.

    Attributes:
        account: Name of the account and its run.
        step: Its place in the order of the account.
        item: The input.
        now: Wall time at which it was applied.
        policy_mode: Mode of the policy that was in force; likewise its version.
        policy_version: Version of that policy.
        storage_alarm: What kept entries back at that moment; likewise ``entry_bar``.
    """

    account: str
    step: int
    item: Input
    now: datetime
    policy_mode: RiskMode
    policy_version: int
    storage_alarm: str | None = None
    entry_bar: str | None = None

    def context(self, rules: Rules, policy: PolicyState, instruments: Mapping[str, Instrument]) -> Context:
        """Return the surroundings of the step as they were."""
        return Context(rules, policy, instruments, self.now, self.storage_alarm, self.entry_bar)


def record_input(item: Input, account: str, context: Context) -> dict[str, Any]:
    """Return ``item`` as JSON values; of an event only its id, because the event itself is archived."""
    body: dict[str, Any]
    if isinstance(item, SignalReceived | CandleClosed):
        body = {"event_id": item.cause.event_id}
        if isinstance(item, SignalReceived) and item.quote is not None:
            body["quote"] = _QUOTE.dump_python(item.quote, mode="json")
    else:
        body = _ADAPTERS[type(item)].dump_python(item, mode="json")
    written = {
        "account": account,
        "kind": type(item).__name__,
        "body": body,
        "now": context.now.isoformat(),
        "policy": [context.policy.mode.value, context.policy.version],
    }
    bars = {"storage_alarm": context.storage_alarm, "entry_bar": context.entry_bar}
    return written | {name: why for name, why in bars.items() if why is not None}


def recorded_inputs(events: Iterable[Event[Any]]) -> list[RecordedInput]:
    """Return the inputs of one account in the order in which they were applied.

    Args:
        events: Archived events of one run, in any order: those of exec-risk, and the signals and candles behind them.

    Raises:
        InvalidInputError: An input names a signal or candle that is not among the events.
    """
    by_id = {event.metadata.event_id: event for event in events}
    recorded = [
        _read(event.payload.metadata["step"], event.payload.metadata["input"], by_id)
        for event in by_id.values()
        if "input" in event.payload.metadata
    ]
    return sorted(recorded, key=lambda one: one.step)


def _read(step: int, written: dict[str, Any], events: dict[str, Event[Any]]) -> RecordedInput:
    mode, version = written["policy"]
    return RecordedInput(
        account=written["account"],
        step=step,
        item=_read_item(_KINDS[written["kind"]], written["body"], events),
        now=datetime.fromisoformat(written["now"]),
        policy_mode=RiskMode(mode),
        policy_version=version,
        storage_alarm=written.get("storage_alarm"),
        entry_bar=written.get("entry_bar"),
    )


def _read_item(kind: type[Any], body: dict[str, Any], events: dict[str, Event[Any]]) -> Input:
    if kind not in (SignalReceived, CandleClosed):
        item: Input = _ADAPTERS[kind].validate_python(body)
        return item
    try:
        event = events[body["event_id"]]
    except KeyError:
        raise InvalidInputError(f"event {body['event_id']} is not among the recorded events") from None
    if kind is CandleClosed:
        return candle_closed(event)
    return signal_received(event, _QUOTE.validate_python(body["quote"]) if "quote" in body else None)
