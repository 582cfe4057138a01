"""``/health`` of a real process while the servers that it needs hang: quick, truthful, and well again by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infrastructure.embedded.postgres_server import EmbeddedPostgres
from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.hanging_servers import Answer, HangStage, hang_stage, hanging, health_hang_ms

#: Far above what it takes, far below any of the waits that an answer could be caught in.
BOUND_MS = 1000.0


@pytest.fixture
async def stage(
    redis_url: str, redis_server: EmbeddedRedis, database_url: str, postgres_server: EmbeddedPostgres, tmp_path: Path
) -> AsyncIterator[HangStage]:
    assert redis_server.process_id is not None
    assert postgres_server.process_id is not None
    async with hang_stage(
        redis_url=redis_url,
        redis_pid=redis_server.process_id,
        postgres_url=database_url,
        postgres_pid=postgres_server.process_id,
        folder=tmp_path,
    ) as made:
        yield made


def is_well(answer: Answer) -> bool:
    return answer.code == 200 and answer.body["status"] == "OK"


def only(stage: HangStage, *hang: str, answer: Answer) -> bool:
    return all((answer.status_of(name) == "DOWN") == (name in hang) for name in stage.servers)


async def test_while_every_server_hangs_each_is_named_and_no_answer_waits_for_them(stage: HangStage) -> None:
    with hanging(list(stage.servers.values())):
        answers = await stage.reaches(lambda answer: only(stage, "redis", "postgres", "endpoint", answer=answer))
        answers += await stage.ask(50)
        live, ready, metrics = [await stage.get(path) for path in ("/health/live", "/health/ready", "/metrics")]

    last = answers[-1]
    assert (last.code, last.body["status"]) == (503, "DOWN")
    assert all(last.body["dependencies"][name]["error"] for name in stage.servers)
    assert last.status_of("eventbus") == "OK", "a consumer that waits for Redis is not stuck"
    assert [live.code, ready.code, metrics.code] == [200, 200, 200]
    assert max(answer.took_ms for answer in (*answers, live, ready, metrics)) < BOUND_MS

    await stage.reaches(is_well)


@pytest.mark.parametrize(
    ("name", "code", "status"), [("redis", 503, "DOWN"), ("postgres", 503, "DOWN"), ("endpoint", 200, "DEGRADED")]
)
async def test_one_server_that_hangs_is_told_by_name(stage: HangStage, name: str, code: int, status: str) -> None:
    with hanging([stage.servers[name]]):
        answers = await stage.reaches(lambda answer: only(stage, name, answer=answer))

    assert (answers[-1].code, answers[-1].body["status"]) == (code, status)
    await stage.reaches(is_well)


async def test_the_measurement_covers_the_time_before_and_after_the_verdict(stage: HangStage) -> None:
    figures = await health_hang_ms(stage, requests=20)

    assert figures.requests > 40
    assert 0 < figures.median <= figures.p99 <= figures.worst < BOUND_MS
    await stage.reaches(is_well)
