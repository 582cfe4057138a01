"""The conversation between a benchmark and its workers."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from typing import Any

import pytest

from infrastructure.bench.crew import Part, crew
from infrastructure.bench.cue import Cue
from shared.errors import TransientError
from tests.support.eventually import eventually


class Parent:
    """The other end of a cue, in the same process."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._heard = io.StringIO()
        self.tell({"seconds": 1.5})
        self.cue = Cue(self._reading, self._heard)

    def tell(self, message: dict[str, Any]) -> None:
        os.write(self._writing, json.dumps(message).encode() + b"\n")

    def heard(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._heard.getvalue().splitlines()]


@pytest.fixture
def parent() -> Parent:
    # Its pipe stays open: the end of it would end this process, as it ends a worker that nobody waits for.
    return Parent()


def test_options_come_first(parent: Parent) -> None:
    assert parent.cue.options == {"seconds": 1.5}


def test_a_worker_says_what_it_is_ready_with_and_waits_for_the_start(parent: Parent) -> None:
    parent.tell({"go": True})

    parent.cue.wait_for_start(port=1234)

    assert parent.heard() == [{"ready": {"port": 1234}}]


def test_a_result_carries_the_processor_time_since_the_start(parent: Parent) -> None:
    parent.tell({"go": True})
    parent.cue.wait_for_start()

    parent.cue.tell({"count": 3})

    result = parent.heard()[-1]["result"]
    assert result["count"] == 3
    assert result["user_seconds"] >= 0
    assert result["system_seconds"] >= 0


async def test_a_consumer_is_done_when_all_that_is_expected_came(parent: Parent) -> None:
    handled = 0
    waiting = asyncio.create_task(parent.cue.until(lambda expected: handled >= expected))

    parent.tell({"expected": 2})
    await eventually(lambda: parent.cue.expected == 2)
    assert not waiting.done()
    handled = 2
    await asyncio.wait_for(waiting, 10.0)


async def test_a_part_that_cannot_begin_is_told_with_its_last_words() -> None:
    async with crew(Part("worker", "ours.logs:no_such_part", {"seconds": 0.1})) as (worker,):
        with pytest.raises(TransientError, match=r"ours\.logs:no_such_part ended before it said 'ready': .*no_such"):
            await worker.ready()


async def test_a_worker_ends_when_nobody_is_left_to_tell() -> None:
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "infrastructure.bench.worker", "ours.logs:write_bare"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b'{"seconds": 60.0}\n')
    assert await worker.stdout.readline() == b'{"ready": {}}\n'

    worker.stdin.close()

    assert await asyncio.wait_for(worker.wait(), 30.0) == 1
