"""Small adapters: the cursor file, the training worker's lines, the settings."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from services.ai_service.adapters.feed_cursor import FileFeedCursor
from services.ai_service.adapters.training_process import TrainingProcess
from services.ai_service.ports import TrainingProgress, TrainingResult
from shared.errors import PermanentError, QuantumTraderError, TransientError
from tests.support.ai_market import NOON, ai_settings
from tests.support.eventually import eventually


def cursor(folder: Path, run_id: str = "r1") -> FileFeedCursor:
    return FileFeedCursor(folder, mode="paper", run_id=run_id, timeframe="1m")


def test_the_cursor_remembers_across_lives_and_keeps_runs_apart(tmp_path: Path) -> None:
    first = cursor(tmp_path)
    assert first.load() == {}
    first.save("BTCUSDT", NOON)
    first.save("ETHUSDT", NOON)
    first.save("BTCUSDT", NOON + timedelta(minutes=1))

    assert cursor(tmp_path).load() == {"BTCUSDT": NOON + timedelta(minutes=1), "ETHUSDT": NOON}
    assert cursor(tmp_path, "r2").load() == {}


def test_a_second_life_keeps_what_it_does_not_publish_itself(tmp_path: Path) -> None:
    cursor(tmp_path).save("BTCUSDT", NOON)
    second = cursor(tmp_path)
    second.load()
    second.save("ETHUSDT", NOON)

    assert set(cursor(tmp_path).load()) == {"BTCUSDT", "ETHUSDT"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"BTCUSDT": "yesterday"}', b"\xff"])
def test_a_damaged_cursor_counts_as_none(tmp_path: Path, content: bytes) -> None:
    cursor(tmp_path).save("BTCUSDT", NOON)
    next((tmp_path / "market_data").iterdir()).write_bytes(content)

    assert cursor(tmp_path).load() == {}


def test_a_cursor_that_cannot_be_written_costs_no_candle(tmp_path: Path) -> None:
    (tmp_path / "market_data").write_text("a file where the folder should be")

    cursor(tmp_path).save("BTCUSDT", NOON)


async def run_worker(script: str, told: list[TrainingProgress] | None = None) -> TrainingResult:
    """Run a trainer whose worker is ``script``."""

    async def report(progress: TrainingProgress) -> None:
        if told is not None:
            told.append(progress)

    return await TrainingProcess({"QT_TEST_VALUE": "handed over"}, command=("-c", script)).train(NOON, report)


async def test_the_worker_gets_its_settings_and_arguments_and_its_lines_are_relayed() -> None:
    told: list[TrainingProgress] = []

    result = await run_worker(
        """
import json, os, sys
print("a library says hello")
print(json.dumps({"kind": "progress", "stage": " ".join(sys.argv[1:]), "progress_pct": 12.5}))
result = {"kind": "result", "version": os.environ["QT_TEST_VALUE"], "samples": 5, "accuracy": 0.5, "seconds": 1}
print(json.dumps(result))
""",
        told,
    )

    assert result == TrainingResult("handed over", 5, 0.5, 1.0)
    assert told == [TrainingProgress(f"--json --until {NOON.isoformat()} --parent {os.getpid()}", 12.5)]


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ('print(\'{"kind":"error","message":"too few candles","hopeless":true}\')', PermanentError, "too few candles"),
        ('print(\'{"kind":"error","message":"no answer"}\')', TransientError, "no answer"),
        ("raise SystemExit(3)", TransientError, "without a result, exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", TransientError, "without a result, exit code -9"),
    ],
)
async def test_a_worker_that_fails_says_why(script: str, error: type[QuantumTraderError], message: str) -> None:
    with pytest.raises(error, match=message):
        await run_worker(script)


async def test_no_worker_outlives_the_training_that_waits_for_it() -> None:
    script = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print('{"kind":"progress","stage":"%d"}' % os.getpid(), flush=True)
signal.pause()
"""
    told: list[TrainingProgress] = []
    training = asyncio.create_task(run_worker(script, told))
    await eventually(lambda: told, what="the worker")
    child = psutil.Process(int(told[0].stage))

    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training

    assert not child.is_running()


def test_settings_have_the_defaults_of_the_specification_where_they_apply() -> None:
    settings = ai_settings()

    assert settings.port == 8001
    assert settings.prediction_timeout_seconds == 2.0
    assert settings.heartbeat_interval_seconds == 5
    assert settings.sizing_capital_usd == 10_000
    assert settings.barriers.min_distance_pct == pytest.approx(3 * settings.round_trip_cost_pct)
    assert settings.signal_rule.min_confidence == settings.min_confidence_threshold


@pytest.mark.parametrize(
    "changes",
    [{"min_confidence_threshold": 1.5}, {"kelly_share": 0}, {"horizon_candles": 0}, {"training_candles": 10}],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        ai_settings(**changes)
