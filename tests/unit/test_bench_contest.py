"""Rounds, turns, and rivals that fail or are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infrastructure.bench.contest import Benchmark, Contestant, hold
from infrastructure.bench.figures import Measured, Row, Target
from infrastructure.bench.stage import Stage
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.clock import SystemClock
from shared.errors import TransientError


@dataclass
class Played:
    """A contestant that is given its values, round by round; None is a failure."""

    name: str
    values: Sequence[float | None]
    course: list[str]
    rounds: int = field(default=0)

    async def perform(self, stage: Stage, seconds: float) -> Measured:
        self.course.append(self.name)
        value = self.values[self.rounds]
        self.rounds += 1
        if value is None:
            raise TransientError("its server is gone")
        return Measured(value, {"foreign_cpu": 0.25})


class Scene:
    """Ours against one rival, on a stage that nobody needs."""

    def __init__(self, tmp_path: Path) -> None:
        self.course: list[str] = []
        self.told: list[str] = []
        self._stage = Stage(EmbeddedRedis(tmp_path), tmp_path, SystemClock())

    async def row(self, ours: Sequence[float | None], rival: Sequence[float | None], library: str | None = None) -> Row:
        benchmark = Benchmark(
            "rpc_p50_us",
            "a round trip",
            "us",
            Played("ours", ours, self.course),
            (Contestant("rival", Played("rival", rival, self.course), library=library),),
            (Target("at most", 1.3, "rival"),),
            lambda details: f"explained: {details['foreign_cpu']}",
        )
        return await hold(benchmark, self._stage, rounds=3, seconds=0.0, tell=self.told.append)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_contestants_take_turns_and_each_begins_now_and_then(scene: Scene) -> None:
    row = await scene.row([100.0, 110.0, 120.0], [100.0, 100.0, 100.0])

    assert scene.course == ["ours", "rival", "rival", "ours", "ours", "rival"]
    assert (row.value, row.first.rival_value, row.first.ratio, row.ok) == (110.0, 100.0, 1.1, True)
    assert row.foreign_cpu == 0.25
    assert row.notes == ("explained: 0.25",)
    assert scene.told[0] == "rpc_p50_us: round 1 of 3: quantum-trader"


async def test_a_rival_that_fails_is_left_out_with_a_note(scene: Scene) -> None:
    row = await scene.row([100.0, 110.0, 120.0], [100.0, None, 100.0])

    assert scene.course.count("rival") == 2
    assert (row.value, row.first.ratio, row.ok) == (110.0, None, None)
    assert row.notes[0] == "rival failed: its server is gone"


async def test_a_rival_that_is_not_installed_is_named_with_what_to_install(scene: Scene) -> None:
    row = await scene.row([100.0, 110.0, 120.0], [], library="no_such_library")

    assert scene.course == ["ours"] * 3
    assert row.value == 110.0
    assert row.ok is None
    assert row.notes[0] == ("rival takes no part: no_such_library is not installed (pip install -e '.[dev]')")


async def test_a_row_ends_when_we_fail(scene: Scene) -> None:
    row = await scene.row([100.0, None, 120.0], [100.0, 100.0, 100.0])

    assert row.value is None
    assert row.ok is None
    assert row.notes == ("quantum-trader failed: its server is gone",)
    assert scene.course == ["ours", "rival", "rival", "ours"]
