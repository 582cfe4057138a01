"""Ids, state machines, delays and errors."""

from __future__ import annotations

import inspect
import random
import re
import uuid

import pytest

from shared import errors
from shared.backoff import Backoff
from shared.errors import IllegalTransitionError
from shared.fsm import TransitionTable
from shared.ids import RandomIds, SeededIds, client_order_id, derive_id


def test_random_ids_are_uuids_and_differ() -> None:
    ids = RandomIds()
    first, second = ids.new(), ids.new()

    assert first != second
    assert str(uuid.UUID(first)) == first


def test_the_same_seed_gives_the_same_ids_in_the_same_order() -> None:
    one, two, other = SeededIds(7), SeededIds(7), SeededIds(8)

    names = [one.new() for _ in range(5)]

    assert names == [two.new() for _ in range(5)]
    assert len(set(names)) == 5
    assert names[0] != other.new()
    assert uuid.UUID(names[0]).version == 4


def test_a_derived_id_depends_on_each_part_and_on_where_it_ends() -> None:
    derived = derive_id("candle", "BTCUSDT", "1m")

    assert derived == derive_id("candle", "BTCUSDT", "1m")
    assert len({derived, derive_id("candle", "BTCUSDT1", "m"), derive_id("candle", "BTCUSDT"), derive_id("x")}) == 4


@pytest.mark.parametrize("leg", ["entry", "exit", "stop", "take_profit", "slice"])
def test_a_client_order_id_is_one_that_binance_takes(leg: str) -> None:
    name = client_order_id("cause", leg, 3)

    assert len(name) == 30
    assert re.fullmatch(r"[.A-Z:/a-z0-9_-]{1,36}", name)


def test_an_intent_always_has_the_same_order_id_and_no_other_has_it() -> None:
    intents = [(cause, leg, sequence) for cause in "ab" for leg in ("stop", "step", "entry") for sequence in range(3)]

    names = {client_order_id(*intent) for intent in intents}

    assert names == {client_order_id(*intent) for intent in intents}
    assert len(names) == len(intents)


DOOR = TransitionTable("door", {("open", "push"): "closed", ("closed", "pull"): "open"})


def test_a_table_leads_from_state_to_state() -> None:
    assert DOOR.next_state("open", "push") == "closed"
    assert DOOR.allows("closed", "pull")


def test_what_the_table_does_not_hold_is_refused_by_name() -> None:
    assert not DOOR.allows("open", "pull")
    with pytest.raises(IllegalTransitionError, match="door: no transition from open on pull"):
        DOOR.next_state("open", "pull")


def test_a_table_is_not_changed_through_the_mapping_it_was_made_from() -> None:
    rows = {("open", "push"): "closed"}
    table = TransitionTable("door", rows)

    rows["open", "push"] = "broken"

    assert table.next_state("open", "push") == "closed"


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    backoff = Backoff(base_seconds=1, factor=2, cap_seconds=30)

    assert [backoff.delay(attempt) for attempt in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay(100_000) == 30


def test_jitter_takes_away_at_most_its_share() -> None:
    backoff = Backoff(base_seconds=8, factor=2, cap_seconds=8, jitter=0.25)
    rng = random.Random(1)

    delays = [backoff.delay(3, rng) for _ in range(200)]

    assert all(6 <= delay <= 8 for delay in delays)
    assert max(delays) - min(delays) > 1
    assert backoff.delay(3) == 8


def test_every_error_is_one_of_ours_and_says_whether_trying_again_can_help() -> None:
    tree = [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]

    assert all(issubclass(error, errors.QuantumTraderError) for error in tree)
    assert not any(
        issubclass(error, errors.TransientError) and issubclass(error, errors.PermanentError) for error in tree
    )


def test_errors_keep_what_a_handler_needs() -> None:
    assert errors.DecodeError("bad", raw=b"x").raw == b"x"
    assert errors.RpcError("NO_MODEL", "none").code == "NO_MODEL"
    rejected = errors.OrderRejectedError("no", code=-2010, http_status=400)
    assert (rejected.code, rejected.http_status) == (-2010, 400)
