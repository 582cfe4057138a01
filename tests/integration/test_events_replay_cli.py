"""``quantum-trader events replay``: shows what lies in the streams, and lets a service read it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.bus_stage import Recorder, RedisStage, settled
from tests.support.command_line import Finished, run_command
from tests.support.event_payloads import candle, position_opened


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[RedisStage]:
    stage = RedisStage(redis_url)
    await stage.open()
    yield stage
    await stage.close()


async def replay(*arguments: str, redis_url: str, folder: Path) -> Finished:
    return await run_command("events", "replay", *arguments, cwd=folder, environment={"REDIS_URL": redis_url})


async def test_what_lies_in_the_streams_is_shown_by_type_and_age(
    stage: RedisStage, redis_url: str, tmp_path: Path
) -> None:
    publisher = stage.bus("ai-service")
    first = await publisher.publish("candle.closed", candle(number=1))
    second = await publisher.publish("position.opened", position_opened())

    everything = await replay("--since", "15m", "--json", redis_url=redis_url, folder=tmp_path)
    positions = await replay("--since", "15m", "--type", "position.*", "--json", redis_url=redis_url, folder=tmp_path)
    later = await replay("--since", "2099-01-01T00:00:00Z", "--json", redis_url=redis_url, folder=tmp_path)

    ids = [line["event_id"] for line in everything.json_lines()]
    assert ids == [first.metadata.event_id, second.metadata.event_id]
    assert [line["event_id"] for line in positions.json_lines()] == [second.metadata.event_id]
    assert later.json_lines() == []


async def test_a_service_reads_again_from_an_entry_on(stage: RedisStage, redis_url: str, tmp_path: Path) -> None:
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()
    published = [(await bus.publish("candle.closed", candle(number=number))).metadata.event_id for number in range(3)]
    await settled(stage)
    await bus.stop()
    since = await stage.entry_id("quantum:stream:candle.closed", 1)

    told = await replay(
        "--since", since, "--service", "exec-risk-service", "--json", redis_url=redis_url, folder=tmp_path
    )

    assert told.json() == {"service": "exec-risk-service", "events": 2}
    again, repeated = stage.bus(), Recorder()
    again.subscribe("candle.closed", repeated)
    await again.start()
    await settled(stage)
    assert repeated.ids == published[1:]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("--since", "yesterday"), 2, "yesterday"),
        (("--since", "15m", "--service", "nobody"), 2, "nobody"),
        (("--since", "15m", "--type", "postion.*"), 4, "postion"),
        (("--since", "15m", "--service", "ai-service"), 4, "ai-service consumes none"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(
    redis_url: str, tmp_path: Path, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    finished = await replay(*arguments, redis_url=redis_url, folder=tmp_path)

    assert finished.exit_code == exit_code
    assert said in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
