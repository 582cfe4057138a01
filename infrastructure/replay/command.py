"""``quantum-trader replay``: the live code on historical candles, or on the recorded events of a live run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from infrastructure.cli.options import DEFAULT_SYMBOLS, DEFAULT_TIMEFRAME, JsonOption, StateDirOption, state_dir_from


def replay(
    *,
    candles: Annotated[str, typer.Option(help="Where the market comes from: a folder of candle files, or synthetic.")],
    symbols: Annotated[
        str | None, typer.Option(help=f"Markets, separated by commas; else QT_SYMBOLS, else {DEFAULT_SYMBOLS}.")
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option(help=f"Length of a candle; else QT_TIMEFRAME, else {DEFAULT_TIMEFRAME}.")
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Market time of the start, ISO 8601; else as `up` does."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Market time of the end, ISO 8601; else the last candle.")
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(help="Recorded events (quantum-trader events --json): give their inputs to exec-risk again."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write every event of the replay to this file, one per line.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the ids and of the synthetic market.")] = 1,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Run all three services in one process on the memory bus, as fast as they can.

    The same handlers and the same domain as live; a model is taken from the state folder, or trained first.
    """
    from infrastructure.cli.run_options import read_options
    from infrastructure.replay.session import replay_candles, replay_events
    from infrastructure.supervisor.environment import read_environment

    options = read_options(
        read_environment(),
        candles=candles,
        symbols=symbols,
        timeframe=timeframe,
        speed=1.0,
        seed=seed,
        port_base=0,
        state_dir=state_dir_from(state_dir),
    )
    start, stop = _moment("--from", begin), _moment("--to", end)
    if events is not None:
        replay_events(options, events, start=start, as_json=json)
    else:
        replay_candles(options, start=start, end=stop, save=save, as_json=json)


def _moment(option: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r} is no time; write it as 2025-06-01T00:00:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
