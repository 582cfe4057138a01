"""Which slot a command of a cluster belongs to, and who has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from shared.errors import InvalidInputError
from shared.events.streams import event_stream
from shared.redis_links.slots import SlotMap, redirection_of, slot_of, slot_of_command
from shared.redis_wire import Command, ErrorReply


@given(st.one_of(st.binary(), st.text("{}abc").map(str.encode), st.text().map(str.encode)))
def test_slots_are_those_of_redis(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


def test_text_and_numbers_have_the_slot_of_their_bytes() -> None:
    assert slot_of("quantum:ø") == slot_of("quantum:ø".encode())
    assert slot_of(17) == slot_of(b"17")


def test_one_partition_of_all_event_types_shares_a_slot_and_two_partitions_do_not() -> None:
    first = {slot_of(event_stream(event_type, 0)) for event_type in ("signal.generated", "position.opened")}

    assert len(first) == 1
    assert first.isdisjoint({slot_of(event_stream("signal.generated", 1))})


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "key"),
        ("set", b"key", 1),
        (b"XADD", "key", "MAXLEN", "~", 10, "*", "field", "value"),
        ("XACK", "key", "group", "1-0"),
        ("XGROUP", "CREATE", "key", "group", "0", "MKSTREAM"),
        ("XINFO", "GROUPS", "key"),
        ("XREAD", "COUNT", 1, "BLOCK", 100, "STREAMS", "key", "other", "0", "0"),
        ("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "key", ">"),
        ("XREADGROUP", "GROUP", "streams", "STREAMS", "streams", "key", ">"),
        ("HSET", "key", "field", "value"),
        ("ZADD", "key", 1, "member"),
        ("DEL", "key", "key"),
        ("EXPIRE", "key", 10),
    ],
)
def test_a_command_goes_where_its_key_is(command: Command) -> None:
    assert slot_of_command(command) == slot_of("key")


def test_a_command_without_a_key_goes_anywhere() -> None:
    assert slot_of_command(("PING",)) is None


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("EVAL", "return 1", 0), "EVAL cannot be routed"),
        (("FLUSHALL",), "FLUSHALL cannot be routed"),
        (("MULTI",), "MULTI cannot be routed"),
        (("GET",), "GET has no key"),
        (("XREAD", "COUNT", 1), "XREAD has no key"),
    ],
)
def test_what_cannot_be_routed_is_refused_by_name(command: Command, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        slot_of_command(command)


A, B, C = ("10.0.0.1", 7000), ("10.0.0.2", 7000), ("10.0.0.3", 7000)


def row(first: int, last: int, *nodes: tuple[str, int]) -> list[object]:
    return [first, last, *([host.encode(), port, b"id"] for host, port in nodes)]


def test_the_map_knows_masters_replicas_and_owners() -> None:
    slots = SlotMap([row(0, 99, A, C), row(100, 16383, B)])

    assert (slots.owner(0), slots.owner(99), slots.owner(100), slots.owner(16383)) == (A, A, B, B)
    assert slots.masters == (A, B)
    assert set(slots.nodes) == {A, B, C}


def test_slots_without_a_master_have_no_owner() -> None:
    slots = SlotMap([row(10, 16383, A)])

    assert slots.owner(9) is None
    assert slots.owner(10) == A


def test_a_node_that_does_not_know_its_host_is_the_one_that_was_asked() -> None:
    assert SlotMap([row(0, 16383, ("", 7001))], asked=A).owner(5) == ("10.0.0.1", 7001)


def test_a_slot_that_moved_makes_it_another_map() -> None:
    rows = [row(0, 99, A), row(100, 16383, B)]
    slots = SlotMap(rows)
    assert slots == SlotMap(rows)

    slots.assign(7, C)

    assert (slots.owner(7), slots.owner(8)) == (C, A)
    assert slots.masters == (A, C, B)
    assert slots != SlotMap(rows)


def test_redirections_are_read() -> None:
    assert redirection_of(ErrorReply("MOVED 3999 10.0.0.2:7000")) == ("MOVED", 3999, B)
    assert redirection_of(ErrorReply("ASK 1 ::1:7000")) == ("ASK", 1, ("::1", 7000))
    assert redirection_of(ErrorReply("ERR no such key")) is None
