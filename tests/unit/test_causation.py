"""Events are told in the order of cause and effect, whatever the clocks of their producers say."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from infrastructure.cli.causation import as_json, causal_order, tree_order
from services.analytics_os_service.domain.archived_event import ArchivedEvent
from shared.events.envelope import EventMetadata

NOON = datetime(2025, 5, 4, 12, tzinfo=UTC)


def event(event_id: str, event_type: str, *, cause: str | None = None, milliseconds: int = 0) -> ArchivedEvent:
    metadata = EventMetadata(
        event_id=event_id,
        event_type=event_type,
        trace_id="trace",
        causation_id=cause,
        timestamp=NOON + timedelta(milliseconds=milliseconds),
        source="test",
        sequence=1,
    )
    return ArchivedEvent(metadata, "BTCUSDT", {"symbol": "BTCUSDT"})


#: A trade as it happens, but exec-risk's clock runs 40 ms behind, and two events share one timestamp.
TRADE = [
    event("1", "candle.closed", milliseconds=100),
    event("2", "model.prediction", cause="1", milliseconds=110),
    event("3", "rl.decision", cause="1", milliseconds=111),
    event("4", "signal.generated", cause="1", milliseconds=111),
    event("5", "order.updated", cause="4", milliseconds=71),
    event("6", "execution.result", cause="4", milliseconds=75),
    event("7", "position.opened", cause="6", milliseconds=75),
]


@pytest.mark.parametrize("seed", range(5))
def test_a_trade_is_told_from_the_candle_to_the_position(seed: int) -> None:
    shuffled = random.Random(seed).sample(TRADE, len(TRADE))

    types = [record.metadata.event_type for record in causal_order(shuffled)]

    assert types[0] == "candle.closed"
    assert types[-1] == "position.opened"
    assert types.index("signal.generated") < types.index("order.updated")
    assert types == [record.metadata.event_type for record in TRADE]


def test_an_event_whose_cause_was_not_asked_for_is_a_root() -> None:
    assert [depth for depth, _ in tree_order([event("7", "position.opened", cause="6")])] == [0]


def test_an_event_that_comes_twice_is_told_once() -> None:
    assert len(causal_order([TRADE[0], TRADE[0]])) == 1


def test_causes_in_a_circle_are_shown_last_and_not_lost() -> None:
    circle = [event("a", "x", cause="b"), event("b", "y", cause="a")]

    ids = [record.metadata.event_id for record in causal_order([*circle, TRADE[0]])]

    assert ids == ["1", "a", "b"]


def test_the_tree_puts_every_effect_below_its_cause() -> None:
    lines = [(depth, record.metadata.event_type) for depth, record in tree_order(TRADE)]

    assert lines == [
        (0, "candle.closed"),
        (1, "model.prediction"),
        (1, "rl.decision"),
        (1, "signal.generated"),
        (2, "order.updated"),
        (2, "execution.result"),
        (3, "position.opened"),
    ]


def test_json_holds_the_envelope_and_the_payload() -> None:
    line = as_json(TRADE[6])

    assert line["causation_id"] == "6"
    assert line["payload"] == {"symbol": "BTCUSDT"}
    assert set(line) >= {"event_id", "event_type", "trace_id", "timestamp", "source", "sequence", "symbol"}
