"""The whole suite in one process: bit-equal every time, and its recording leads to the same intents."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infrastructure.paper_exchange.candle_sources import open_source
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.replay.recorded_run import replay_recording
from infrastructure.replay.recording import read_recording, write_recording
from infrastructure.replay.runner import Replayed, replay
from infrastructure.replay.session import intent_json
from infrastructure.replay.suite import ReplaySettings, rules_for
from infrastructure.supervisor.market_start import market_start
from shared.clock import SystemClock
from shared.errors import ConfigurationError, DecodeError, InvalidInputError
from shared.events.envelope import Event
from tests.support.command_line import run_command
from tests.support.markets import market_folder

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
CANDLES = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return market_folder(tmp_path_factory.mktemp("market"), SYMBOLS, "1m")


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def start_of(folder: Path) -> datetime:
    return market_start(open_source(str(folder), SYMBOLS, "1m"), speed=1.0, run_seconds=None)


async def play(folder: Path, state_dir: Path, *, seed: int = 1, candles: int = CANDLES) -> Replayed:
    start = start_of(folder)
    return await replay(
        open_source(str(folder), SYMBOLS, "1m"),
        ReplaySettings(SYMBOLS, "1m", start, seed, state_dir),
        start + timedelta(minutes=candles),
        clock=SystemClock(),
        on_training=lambda _: None,
        on_progress=lambda *_: None,
    )


def of_type(events: tuple[Event[Any], ...], event_type: str) -> list[Event[Any]]:
    return [event for event in events if event.metadata.event_type == event_type]


async def test_a_replay_trades_and_a_second_one_is_bit_equal(folder: Path, state_dir: Path, tmp_path: Path) -> None:
    first = await play(folder, state_dir)
    second = await play(folder, tmp_path)  # trains its own model, from the same candles

    report = first.report
    assert report.candles == CANDLES * len(SYMBOLS) == report.predictions == report.signals
    assert min(report.intents, report.fills, report.positions_opened, report.positions_closed) > 0
    assert report.dead_letters == 0
    assert report.invariants == dict.fromkeys(report.invariants, True)
    assert second.report.digest == report.digest
    assert second.intents == first.intents


async def test_the_recording_of_a_run_gives_its_intents_again(folder: Path, state_dir: Path, tmp_path: Path) -> None:
    live = await play(folder, state_dir)
    file = tmp_path / "run.jsonl"
    write_recording(file, live.events)
    engine = MatchingEngine(open_source(str(folder), SYMBOLS, "1m"), start=start_of(folder))

    again = replay_recording(
        read_recording(file),
        instruments={symbol: engine.contract(symbol).instrument for symbol in SYMBOLS},
        rules=rules_for("1m"),
    )

    assert len(again.intents) >= 10
    assert [intent_json(order) for order in again.intents] == [intent_json(order) for order in live.intents]


async def test_a_trace_leads_from_the_candle_to_the_position(folder: Path, state_dir: Path) -> None:
    run = await play(folder, state_dir)

    trace = [event for event in run.events if event.metadata.trace_id == run.report.trace_example]
    types = {event.metadata.event_type for event in trace}
    roots = [event for event in trace if event.metadata.causation_id is None]
    ids = {event.metadata.event_id for event in trace}
    assert types >= {"candle.closed", "model.prediction", "rl.decision", "signal.generated", "order.updated"}
    assert types >= {"execution.result", "position.opened", "portfolio.balance"}
    assert [event.metadata.event_type for event in roots] == ["candle.closed"]
    assert all(event.metadata.causation_id in ids for event in trace if event.metadata.causation_id is not None)


async def test_a_recording_without_its_beginning_is_refused(folder: Path, state_dir: Path) -> None:
    run = await play(folder, state_dir)
    late = run.events[len(run.events) // 2 :]

    with pytest.raises(InvalidInputError, match=r"is not among the recorded events|must cover the run"):
        replay_recording(late, instruments={}, rules=rules_for("1m"))


def test_a_damaged_recording_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text('\n{"event_id": "1"}\n')

    with pytest.raises(DecodeError, match=r"run\.jsonl line 2 is no event"):
        read_recording(file)


async def test_an_end_before_the_start_is_refused(folder: Path, state_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to replay"):
        await play(folder, state_dir, candles=0)


async def test_the_command_prints_one_json_object(folder: Path, state_dir: Path, tmp_path: Path) -> None:
    end = (start_of(folder) + timedelta(minutes=20)).isoformat()

    ended = await run_command(
        *("replay", "--candles", str(folder), "--timeframe", "1m", "--to", end),
        *("--state-dir", str(state_dir), "--json"),
        cwd=tmp_path,
    )

    assert ended.exit_code == 0, ended.stderr
    assert ended.json()["candles"] == 60
