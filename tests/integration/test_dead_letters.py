"""Dead letters of a real bus: listed, looked at, sent again byte for byte, dropped; on one Redis and on a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from shared.bus.dead_letters import SERVICES, DeadLetter, DeadLetterBox
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.errors import ConnectionLostError, InvalidInputError
from shared.events.envelope import Event
from shared.events.streams import StreamNames, dead_letter_stream
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.telemetry.masking import Masker, use_masker
from tests.support.bus_stage import PARTITIONS, QUICK, SERVICE
from tests.support.event_payloads import candle, risk_alert
from tests.support.eventually import eventually

#: Bytes that no decoder likes: not UTF-8, no JSON, and what a terminal would obey.
NASTY = {b"metadata": b"\xff\xfe{", b"payload": b"\x00\x1b[31m\r\nNaN", b"producer": b"", b"raw_raw": b"\x80"}


@dataclass
class Stage:
    """One Redis, a bus that fails when it is told to, and the box."""

    connection: RedisConnection
    box: DeadLetterBox
    broken: bool = False

    @asynccontextmanager
    async def service(self) -> AsyncIterator[list[Event[Any]]]:
        """Run a consumer for the block, and give what it has handled."""
        clock = SystemClock()
        bus = RedisStreamsBus(
            self.connection,
            service=SERVICE,
            instance="one",
            clock=clock,
            ids=RandomIds(),
            market_clock=clock,
            options=QUICK,
            partitions=PARTITIONS,
        )
        handled: list[Event[Any]] = []

        async def handle(event: Event[Any]) -> None:
            if self.broken:
                raise InvalidInputError("no such market as redis://ann:canary-pw@host\r\n\x1b[31mFAKE")
            handled.append(event)

        bus.subscribe("candle.closed", handle)
        bus.subscribe("risk.alert", handle)
        self.publish = bus.publish
        try:
            await bus.start()
            yield handled
        finally:
            await bus.stop()

    async def letters(self, count: int) -> list[DeadLetter]:
        async def there() -> list[DeadLetter]:
            found = await self.box.page(SERVICE, limit=100)
            return found if len(found) == count else []

        return await eventually(there, what=f"{count} dead letters")

    async def put_aside(self, origin: str, fields: dict[bytes, bytes], service: str = SERVICE) -> DeadLetter:
        """Write a dead letter as a service would, past the bus."""
        raw = [part for name, value in fields.items() for part in (b"raw_" + name, value)]
        box = dead_letter_stream(service)
        (letter_id,) = await self.connection.execute(
            ("XADD", box, "*", "origin", origin, "entry_id", "1-1", "error", "E", "attempts", 3, "failed_at", "x", *raw)
        )
        letter = await self.box.get(service, letter_id.decode())
        assert letter is not None
        return letter

    def stream(self, event_type: str, key: str | None = None) -> str:
        return StreamNames(PARTITIONS if self.connection.is_cluster else 0).stream(event_type, key)


@pytest.fixture(params=["redis", "cluster"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    url = request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster_url")
    connection = RedisConnection(url, clock=SystemClock())
    await connection.start()
    yield Stage(connection, DeadLetterBox(connection))
    await connection.stop()


async def test_an_event_that_was_given_up_is_sent_again_and_handled_under_its_own_id(stage: Stage) -> None:
    stage.broken = True
    async with stage.service() as handled:
        event = await stage.publish("candle.closed", candle("ETHUSDT"))
        (letter,) = await stage.letters(1)
        assert (letter.event_type, letter.origin) == ("candle.closed", stage.stream("candle.closed", "ETHUSDT"))

        stage.broken = False
        await stage.box.redrive(letter)
        await eventually(lambda: handled, what="the event")

    assert handled == [event]
    assert await stage.box.counts() == dict.fromkeys(SERVICES, 0)


async def test_what_is_shown_of_a_letter_is_printable_and_holds_no_secret(stage: Stage) -> None:
    stage.broken = True
    async with stage.service():
        event = await stage.publish("risk.alert", risk_alert("password=canary-pw"))
        (letter,) = await stage.letters(1)

    summary = letter.summary()
    assert (summary["event_id"], summary["trace_id"]) == (event.metadata.event_id, event.metadata.trace_id)
    assert (summary["service"], summary["event_type"]) == (SERVICE, "risk.alert")
    assert summary["error"].startswith("InvalidInputError: no such market as redis://ann:***@host")
    shown = str(letter.details())
    assert "canary" not in shown
    assert shown.isprintable()


async def test_any_bytes_come_out_of_the_box_as_they_went_in(stage: Stage) -> None:
    origin = stage.stream("candle.closed", "BTCUSDT")
    letter = await stage.put_aside(origin, NASTY)
    assert letter.fields == NASTY
    assert "".join(letter.details()["fields"].values()).isprintable()

    entry_id = await stage.box.redrive(letter)

    (rows,) = await stage.connection.execute(("XRANGE", origin, "-", "+"))
    assert rows == [[entry_id.encode(), [part for pair in NASTY.items() for part in pair]]]
    assert await stage.box.get(SERVICE, letter.letter_id) is None


async def test_secrets_of_this_process_are_masked_wherever_they_stand(stage: Stage) -> None:
    use_masker(Masker(["s3cret-value-of-ours"]))
    try:
        letter = await stage.put_aside(stage.stream("risk.alert"), {b"payload": b'{"note": "s3cret-value-of-ours"}'})
        assert letter.details()["fields"] == {"payload": '{"note": "***"}'}
    finally:
        use_masker(Masker())


@pytest.mark.parametrize(
    "origin", ["quantum:policy:current", "quantum:rpc:request:exec-risk-service", "quantum:dlq:ai-service", "", "\x00"]
)
async def test_a_letter_cannot_choose_to_be_written_elsewhere_than_to_a_stream_of_events(
    stage: Stage, origin: str
) -> None:
    letter = await stage.put_aside(origin, NASTY)

    with pytest.raises(InvalidInputError, match="is no stream of events"):
        await stage.box.redrive(letter)

    assert letter.event_type is None
    assert await stage.box.get(SERVICE, letter.letter_id) == letter
    (exists,) = await stage.connection.execute(("EXISTS", origin))
    assert not exists or origin == "quantum:dlq:ai-service"


async def test_a_letter_that_redis_does_not_take_stays_in_the_box(stage: Stage) -> None:
    origin = stage.stream("candle.closed", "BTCUSDT")
    await stage.connection.execute(("SET", origin, "no stream"))
    letter = await stage.put_aside(origin, NASTY)
    empty = await stage.put_aside(stage.stream("risk.alert"), {})

    with pytest.raises(Exception, match="WRONGTYPE"):
        await stage.box.redrive(letter)
    with pytest.raises(InvalidInputError, match="holds no event; drop it"):
        await stage.box.redrive(empty)

    assert [kept.letter_id for kept in await stage.letters(2)] == [letter.letter_id, empty.letter_id]


async def test_redrive_all_sends_what_is_there_and_not_what_comes_back(stage: Stage) -> None:
    stage.broken = True
    async with stage.service() as handled:
        for number in range(3):
            await stage.publish("candle.closed", candle(number=number))
        await stage.letters(3)
        refused = await stage.put_aside("quantum:policy:current", NASTY)

        redriven = await stage.box.redrive_all(SERVICE)

        assert redriven.sent == 3
        assert [letter.letter_id for letter, _ in redriven.refused] == [refused.letter_id]
        await stage.letters(4)
        stage.broken = False
        assert (await stage.box.redrive_all(SERVICE)).sent == 3
        await eventually(lambda: len(handled) == 3, what="all events")
    assert [event.payload.close for event in handled] == [100.0, 101.0, 102.0]


async def test_the_list_is_paged_the_oldest_first_and_letters_are_dropped_one_by_one_or_all(stage: Stage) -> None:
    put = [await stage.put_aside(stage.stream("risk.alert"), {b"payload": b"%d" % number}) for number in range(5)]
    await stage.put_aside(stage.stream("risk.alert"), NASTY, service="ai-service")
    ids = [letter.letter_id for letter in put]

    page = await stage.box.page(SERVICE, limit=2)
    assert [letter.letter_id for letter in page] == ids[:2]
    assert [letter.letter_id for letter in await stage.box.page(SERVICE, limit=9, after=ids[1])] == ids[2:]
    assert await stage.box.counts() == {"ai-service": 1, "exec-risk-service": 5, "analytics-os-service": 0}

    assert await stage.box.drop(SERVICE, [ids[0], "1-1"]) == 1
    assert await stage.box.drop_all(SERVICE) == 4
    assert await stage.box.counts() == {"ai-service": 1, "exec-risk-service": 0, "analytics-os-service": 0}
    assert await stage.box.drop_all(SERVICE) == 0


@pytest.mark.parametrize(("service", "letter_id"), [("quantum:*", "1-1"), ("", "1-1"), (SERVICE, "-"), (SERVICE, "1")])
async def test_names_and_ids_that_cannot_be_are_refused(stage: Stage, service: str, letter_id: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is no (name of a service|id of a dead letter)"):
        await stage.box.get(service, letter_id)


class DyingConnection(RedisConnection):
    """Loses Redis right before the letter is taken out of the box."""

    async def execute(self, *commands: Any, raise_on_error: bool = True) -> list[Any]:
        if commands[0][0] == "XDEL":
            raise ConnectionLostError("gone")
        return await super().execute(*commands, raise_on_error=raise_on_error)


async def test_a_crash_between_sending_and_taking_out_loses_nothing_and_shows_in_the_message(redis_url: str) -> None:
    connection = DyingConnection(redis_url, clock=SystemClock())
    stage = Stage(connection, DeadLetterBox(connection))
    stage.broken = True
    async with stage.service() as handled:
        await stage.publish("candle.closed", candle())
        (letter,) = await stage.letters(1)
        stage.broken = False

        with pytest.raises(ConnectionLostError, match="was sent again, and may be in the box still"):
            await stage.box.redrive(letter)
        await eventually(lambda: handled, what="the event")
        assert await stage.letters(1) == [letter]

        # Sent again by somebody who saw it in the list: a repeated delivery, which is recognised.
        with pytest.raises(ConnectionLostError):
            await stage.box.redrive(letter)
        await stage.publish("candle.closed", candle(number=1))
        await eventually(lambda: len(handled) >= 2, what="the next event")
    assert [event.payload.close for event in handled] == [100.0, 101.0]
    await connection.stop()
