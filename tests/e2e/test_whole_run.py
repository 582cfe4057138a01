"""One signal through all of it, for real: processes, Redis, PostgreSQL, ccxt, the paper exchange. Then its replay."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import run_command
from tests.support.live_run import SYMBOLS
from tests.support.recorded_run import TERMS, Recorded

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("whole-runs")]

COUNTS = (
    "candles", "predictions", "signals", "intents", "orders_accepted", "fills", "positions_opened", "positions_closed",
)  # fmt: skip


def test_the_report_counts_what_happened_and_every_invariant_holds(run: Recorded) -> None:
    report = run.finished.json()

    assert {name: report[name] for name in COUNTS if not report[name] > 0} == {}
    assert report["dead_letters"] == 0
    assert report["invariants"] == {
        "fills_sum_to_positions": True,
        "one_order_per_intent": True,
        "wallet_reconciles": True,
    }
    assert {name: service["restarts"] for name, service in report["services"].items() if service["restarts"]} == {}
    expected = 10_000 + report["realised_pnl_usd"] - report["fees_usd"] + report["funding_usd"]
    assert report["equity_usd"] == pytest.approx(expected, abs=100)


async def test_a_trace_tells_the_trade_from_candle_to_position(run: Recorded, tmp_path: Path) -> None:
    trace_id = run.finished.json()["trace_example"]

    listed = await run_command("events", "--trace", trace_id, "--json", "--state-dir", str(run.state_dir), cwd=tmp_path)

    events = listed.json_lines()
    types = [event["event_type"] for event in events]
    position = {event["event_id"]: number for number, event in enumerate(events)}
    assert types[0] == "candle.closed"
    assert "position.opened" in types
    assert {event["trace_id"] for event in events} == {trace_id}
    assert {event["source"] for event in events} == {"ai-service", "exec-risk-service", "analytics-os-service"}
    assert [event["event_type"] for event in events if event["causation_id"] is None] == ["candle.closed"]
    assert all(position[event["causation_id"]] < number for number, event in enumerate(events) if number)


def signal_terms(events: list[dict[str, Any]]) -> dict[tuple[str, datetime], tuple[Any, ...]]:
    """Return (symbol, candle) -> (action, confidence, size)."""
    signals = [event["payload"] for event in events if event["event_type"] == "signal.generated"]
    return {
        (signal["symbol"], datetime.fromisoformat(signal["metadata"]["candle_close_time"])): (
            signal["action"],
            signal["confidence"],
            signal.get("suggested_size_usd"),
        )
        for signal in signals
    }


async def test_replay_of_the_same_candles_gives_the_same_signals(run: Recorded, tmp_path: Path) -> None:
    live = signal_terms(run.events)
    closes = sorted(close for _, close in live)
    saved = tmp_path / "replay.jsonl"

    replayed = await run_command(
        *("replay", "--candles", str(run.candles), "--symbols", SYMBOLS, "--timeframe", "1m"),
        *("--from", minute_before(closes[0]), "--to", closes[-1].isoformat()),
        *("--state-dir", str(run.state_dir), "--save", str(saved), "--json"),
        cwd=tmp_path,
    )

    assert replayed.exit_code == 0, replayed.stderr
    again = signal_terms([json.loads(line) for line in saved.read_text().splitlines()])
    assert len(live) >= 50
    assert {candle: again.get(candle) for candle in live} == live


def minute_before(moment: datetime) -> str:
    return datetime.fromtimestamp(moment.timestamp() - 60, tz=moment.tzinfo).isoformat()


async def test_replay_of_the_recorded_events_gives_the_same_intents(run: Recorded, tmp_path: Path) -> None:
    recording = tmp_path / "run.jsonl"
    recording.write_text("\n".join(json.dumps(event) for event in run.events))

    replayed = await run_command(
        *("replay", "--candles", str(run.candles), "--symbols", SYMBOLS, "--timeframe", "1m"),
        *("--from", run.market_start, "--events", str(recording), "--json"),
        cwd=tmp_path,
    )

    assert replayed.exit_code == 0, replayed.stderr
    again = {intent["client_order_id"]: {name: intent[name] for name in TERMS} for intent in replayed.json()["intents"]}
    live = {intent["client_order_id"]: intent for intent in run.intents}
    assert len(live) >= 10
    assert again == live
