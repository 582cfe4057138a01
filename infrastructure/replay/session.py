"""What ``quantum-trader replay`` does once its options are read: play, show progress, print the result."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from infrastructure.cli.output import write_json
from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.candle_sources import open_source
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.replay.recorded_run import replay_recording
from infrastructure.replay.recording import read_recording, write_recording
from infrastructure.replay.runner import ReplayReport, replay
from infrastructure.replay.suite import ReplaySettings, rules_for
from infrastructure.supervisor.market_start import market_start
from infrastructure.supervisor.paper_run import RunOptions
from services.ai_service.ports import TrainingProgress
from services.exec_risk_service.domain.orders import Order
from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.telemetry.logs import configure_logging
from shared.trading.instruments import timeframe_duration


def replay_candles(
    options: RunOptions, *, start: datetime | None, end: datetime | None, save: Path | None, as_json: bool
) -> None:
    """Play candles from ``start`` to ``end`` and print the report.

    Raises:
        QuantumTraderError: The candles do not reach that far, or are too few for a model.
    """
    configure_logging("replay", "WARNING")
    source = open_source(options.candles, options.symbols, options.timeframe, seed=options.seed)
    begin = start or market_start(source, speed=1.0, run_seconds=None)
    settings = ReplaySettings(options.symbols, options.timeframe, begin, options.seed, options.state_dir)
    with _progress() as progress:
        training = progress.add_task("training", total=100.0, visible=False)
        playing = progress.add_task("candles", total=None)

        def on_training(seen: TrainingProgress) -> None:
            progress.update(training, completed=seen.progress_pct, description=seen.stage, visible=True)

        def on_progress(done: int, total: int) -> None:
            progress.update(playing, completed=done, total=total)

        replayed = asyncio.run(
            replay(
                source,
                settings,
                end or _last_close(source),
                clock=SystemClock(),
                on_training=on_training,
                on_progress=on_progress,
            )
        )
    if save is not None:
        write_recording(save, replayed.events)
    if as_json:
        write_json(replayed.report.as_json())
    else:
        _show(replayed.report)


def replay_events(options: RunOptions, recording: Path, *, start: datetime | None, as_json: bool) -> None:
    """Give the inputs in ``recording`` to exec-risk again and print the intents that follow.

    Raises:
        QuantumTraderError: The recording is damaged or incomplete, or gives other steps here.
    """
    configure_logging("replay", "WARNING")
    events = read_recording(recording)
    source = open_source(options.candles, options.symbols, options.timeframe, seed=options.seed)
    engine = MatchingEngine(source, start=start or market_start(source, speed=1.0, run_seconds=None))
    run = replay_recording(
        events,
        instruments={symbol: engine.contract(symbol).instrument for symbol in engine.symbols},
        rules=rules_for(options.timeframe),
    )
    intents = [intent_json(order) for order in run.intents]
    if as_json:
        write_json({"inputs": run.inputs, "intents": intents})
        return
    table = Table("client order id", "leg", "symbol", "side", "type", "quantity", "trigger USDT", title="intents")
    for intent in intents:
        table.add_row(*(str(intent[name] or "") for name in _INTENT_COLUMNS))
    Console().print(table)


_INTENT_COLUMNS = ("client_order_id", "leg", "symbol", "side", "order_type", "quantity", "trigger_price")


def intent_json(order: Order) -> dict[str, Any]:
    """Return the terms of an intent as JSON values; numbers as text, so that nothing is rounded."""
    row = asdict(order)
    names = ("cause_event_id", "sequence", "leverage", "arrival_price", "position_id", "created_at", *_INTENT_COLUMNS)
    return {name: None if row[name] is None else str(row[name]) for name in sorted(names)}


def _last_close(source: CandleSource) -> datetime:
    ends = [last for symbol in source.symbols if (last := source.last_open(symbol)) is not None]
    if not ends:
        raise ConfigurationError("the synthetic market has no end: say --to TIME")
    return min(ends) + timeframe_duration(source.timeframe)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )


def _show(report: ReplayReport) -> None:
    table = Table("figure", "value", title="replay")
    for name, value in report.as_json().items():
        table.add_row(name.replace("_usd", " (USDT)").replace("_", " "), str(value))
    Console().print(table)
