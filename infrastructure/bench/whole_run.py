"""The whole system as ``quantum-trader up`` runs it, watched from outside: what passes between a candle and an order.

One run serves every figure that is read from it: it holds dozens of orders, and starting it takes longer than any
other benchmark. exec-risk is killed in the middle. All times are those that stand in the events, on one wall clock.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx

from infrastructure.bench.figures import Measured
from infrastructure.bench.stage import MachineUse, Stage
from infrastructure.bench.statistics import percentile
from infrastructure.supervisor.paper_run import EXCHANGE, EXEC_RISK
from infrastructure.supervisor.run_state import RunState, StateFile
from shared.clock import Clock
from shared.errors import DeadlineExceededError, TransientError

#: Four markets whose candles close every second: enough orders, and time left to answer each of them.
_MARKET = ("--candles", "synthetic", "--symbols", "BTC/USDT:USDT,ETH/USDT:USDT,SOL/USDT:USDT,BNB/USDT:USDT")
_PACE = ("--timeframe", "1m", "--speed", "60", "--seed", "7", "--port-base", "0")
_RUN_SECONDS = 60.0
#: When exec-risk dies, after everything was ready.
_KILL_AFTER_SECONDS = 30.0
#: The start trains the models.
_START_SECONDS = 180.0
_LOOK_SECONDS = 0.05
_PINGS = 200
_MOST_EVENTS = 100_000


@dataclass(frozen=True, slots=True)
class WholeRun:
    """A figure of the one whole run of the stage; the run happens when the first of them is asked for.

    Attributes:
        figure: A key of what ``figures_of`` returns.
    """

    figure: str

    async def perform(self, stage: Stage, seconds: float) -> Measured:
        """See ``Play``; ``seconds`` has no say: candles decide how long it takes to see enough orders."""
        if stage.whole_run is None:
            stage.whole_run = await _run(stage)
        return Measured(stage.whole_run[self.figure], stage.whole_run)


async def _run(stage: Stage) -> Mapping[str, Any]:
    state_dir = _new_folder(stage)
    use, began = MachineUse(), _seconds_of_children()
    process = await _command("up", *_MARKET, *_PACE, "--for", str(_RUN_SECONDS), "--json", "--state-dir", state_dir)
    try:
        state = await _ready(StateFile(state_dir), process, stage.clock)
        pings = await _pings(state.urls[EXCHANGE])
        await stage.clock.sleep(_KILL_AFTER_SECONDS)
        killed = _kill(StateFile(state_dir), stage.clock)
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()
    if process.returncode != 0:
        raise TransientError(f"the run failed: {_last_line(errors)}")
    busy, foreign = use.shares(_seconds_of_children() - began)
    events = await _events(state_dir)
    figures = figures_of(events, killed)
    return {**figures, "ping_ms": percentile(pings, 0.5), "machine_busy": busy, "foreign_cpu": foreign}


def figures_of(events: Sequence[Mapping[str, Any]], killed: datetime) -> dict[str, Any]:
    """Return what the archived ``events`` of a run say in which exec-risk was killed at ``killed``.

    ``candle_to_order`` runs from a closed candle's event to the first ``order.updated`` that says its entry order was
    accepted; ``unprotected`` from the first fill of a position to the event that says its stop rests.

    Raises:
        TransientError: The run holds no such order.
    """
    ordered = sorted(events, key=lambda event: str(event["timestamp"]))
    candles = {event["trace_id"]: _time(event) for event in ordered if event["event_type"] == "candle.closed"}
    updates = [event for event in ordered if event["event_type"] == "order.updated"]
    back = min((_time(event) for event in _answers(ordered, candles, killed)), default=None)
    waits = [
        (_time(event) - candles[event["trace_id"]]).total_seconds() * 1000
        for event in _first_by(updates, "client_order_id", leg="entry", outcome="ACCEPTED")
        if event["trace_id"] in candles and not candles[event["trace_id"]] <= killed <= _time(event)
    ]
    naked = _unprotected(updates, killed)
    if not waits or not naked or back is None:
        raise TransientError(f"the run holds too little: {len(waits)} entries, {len(naked)} stops, back {back}")
    return {
        "count": len(waits),
        "candle_to_order_p50_ms": percentile(waits, 0.5),
        "candle_to_order_p99_ms": percentile(waits, 0.99),
        "unprotected_p50_ms": percentile(naked, 0.5),
        "unprotected_p99_ms": percentile(naked, 0.99),
        "kill_to_trading_s": (back - killed).total_seconds(),
        "stages_p50_ms": _stages(ordered, candles, killed),
    }


def _stages(
    ordered: Iterable[Mapping[str, Any]], candles: Mapping[str, datetime], killed: datetime
) -> dict[str, float]:
    """Return how long after its candle each word about an entry was said, the median in milliseconds by word."""
    waits: dict[str, list[float]] = {}
    accepted = {event["trace_id"] for event in ordered if _word(event) in ("order NEW", "order FILLED")}
    for event in ordered:
        trace = event["trace_id"]
        if trace in accepted and trace in candles and not candles[trace] <= killed <= _time(event):
            waits.setdefault(_word(event), []).append((_time(event) - candles[trace]).total_seconds() * 1000)
    words = ("model.prediction", "signal.generated", "order INITIALIZED", "order SUBMITTED", "order FILLED")
    return {word: round(percentile(waits[word], 0.5), 2) for word in words if word in waits}


def _word(event: Mapping[str, Any]) -> str:
    payload = event["payload"]
    if event["event_type"] == "order.updated" and payload["metadata"].get("leg") == "entry":
        return f"order {payload['status']}"
    return str(event["event_type"])


def _answers(
    ordered: Iterable[Mapping[str, Any]], candles: Mapping[str, datetime], killed: datetime
) -> list[Mapping[str, Any]]:
    """Return what exec-risk said about signals of candles that closed after ``killed``."""
    return [
        event
        for event in ordered
        if event["event_type"] in ("execution.result", "order.updated")
        and event["source"] == EXEC_RISK
        and candles.get(event["trace_id"], killed) > killed
    ]


def _unprotected(updates: Sequence[Mapping[str, Any]], killed: datetime) -> list[float]:
    filled = {_position(event): _time(event) for event in reversed(updates) if _is_fill_of_an_entry(event)}
    stops = {
        _position(event): _time(event)
        for event in reversed(updates)
        if event["payload"]["metadata"].get("leg") == "stop" and event["payload"]["status"] == "NEW"
    }
    return [
        max(0.0, (stops[name] - began).total_seconds() * 1000)
        for name, began in filled.items()
        if name in stops and not began <= killed <= stops[name]
    ]


def _is_fill_of_an_entry(event: Mapping[str, Any]) -> bool:
    metadata = event["payload"]["metadata"]
    return metadata.get("leg") == "entry" and "fill" in metadata


def _first_by(events: Iterable[Mapping[str, Any]], key: str, *, leg: str, outcome: str) -> list[Mapping[str, Any]]:
    first: dict[str, Mapping[str, Any]] = {}
    for event in events:
        payload = event["payload"]
        if payload["metadata"].get("leg") == leg and payload["outcome"] == outcome:
            first.setdefault(payload[key], event)
    return list(first.values())


def _position(event: Mapping[str, Any]) -> str:
    return str(event["payload"]["metadata"]["position_id"])


def _time(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(str(event["timestamp"]))


# -- the run ----------------------------------------------------------------------------------------------------------


def _new_folder(stage: Stage) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="whole-run-", dir=stage.folder))
    folder.chmod(0o711)  # the servers have a user of their own
    return folder


async def _command(*arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infrastructure.cli.main",
        *(str(argument) for argument in arguments),
        # A losing streak on the made-up market is no reason to end the measurement.
        env={**os.environ, "EMERGENCY_STOP_CONSECUTIVE_LOSSES": "1000000"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _ready(file: StateFile, process: asyncio.subprocess.Process, clock: Clock) -> RunState:
    began = clock.monotonic()
    while (state := file.read()) is None or state.phase != "ready":
        if process.returncode is not None:
            assert process.stderr is not None
            raise TransientError(f"the run did not start: {_last_line(await process.stderr.read())}")
        if clock.monotonic() - began > _START_SECONDS:
            raise DeadlineExceededError(f"the run was not ready within {_START_SECONDS:g} s")
        await clock.sleep(_LOOK_SECONDS)
    return state


async def _pings(url: str) -> list[float]:
    """Return the milliseconds of bare requests to the exchange."""
    times = []
    async with httpx.AsyncClient(base_url=url) as http:
        for _ in range(_PINGS):
            began = perf_counter()
            (await http.get("/fapi/v1/ping")).raise_for_status()
            times.append((perf_counter() - began) * 1000)
    return times


def _seconds_of_children() -> float:
    """Return the processor time of every process that was started here and has ended, with all its own."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _kill(file: StateFile, clock: Clock) -> datetime:
    state = file.require()
    moment = clock.now()
    os.kill(int(state.programs[EXEC_RISK]["pid"]), signal.SIGKILL)
    return moment


async def _events(state_dir: Path) -> list[dict[str, Any]]:
    process = await _command("events", "--limit", _MOST_EVENTS, "--json", "--state-dir", state_dir)
    lines, errors = await process.communicate()
    if process.returncode != 0:
        raise TransientError(f"the events of the run cannot be read: {_last_line(errors)}")
    return [json.loads(line) for line in lines.splitlines()]


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
