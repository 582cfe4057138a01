"""``quantum-trader up``: start everything, keep it running, and with ``--for`` end with a report."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from infrastructure.cli.options import (
    DEFAULT_SYMBOLS,
    DEFAULT_TIMEFRAME,
    JsonOption,
    StateDirOption,
    state_dir_from,
)
from infrastructure.supervisor.environment import read_environment
from infrastructure.supervisor.ports import DEFAULT_PORT_BASE


def up(
    *,
    candles: Annotated[
        str,
        typer.Option(help="Where the market comes from: a folder of candle files, live (Binance), or synthetic."),
    ] = "synthetic",
    symbols: Annotated[
        str | None,
        typer.Option(help=f"Markets to trade, separated by commas; else QT_SYMBOLS, else {DEFAULT_SYMBOLS}."),
    ] = None,
    timeframe: Annotated[
        str | None,
        typer.Option(help=f"Length of a candle: 1m, 5m, 1h ...; else QT_TIMEFRAME, else {DEFAULT_TIMEFRAME}."),
    ] = None,
    speed: Annotated[float, typer.Option(min=0.001, max=3600.0, help="Market seconds per wall second.")] = 1.0,
    run_seconds: Annotated[
        float | None,
        typer.Option("--for", min=1.0, metavar="SECONDS", help="Stop so long after all is ready, with a report."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the synthetic market.")] = 1,
    port_base: Annotated[
        int,
        typer.Option(
            min=0,
            max=65000,
            help="Services listen on this plus 1, 2 and 3, the exchange on plus 100 and 101; 0 takes free ports.",
        ),
    ] = DEFAULT_PORT_BASE,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Start Redis, PostgreSQL, the paper exchange and all services; Ctrl-C stops them.

    Redis and PostgreSQL are embedded ones unless REDIS_URL and POSTGRES_URL are set.
    """
    from infrastructure.cli.run_options import read_options
    from infrastructure.cli.run_session import run_up

    environment = read_environment()
    options = read_options(
        environment,
        candles=candles,
        symbols=symbols,
        timeframe=timeframe,
        speed=speed,
        seed=seed,
        port_base=port_base,
        state_dir=state_dir_from(state_dir),
    )
    raise typer.Exit(asyncio.run(run_up(options, environment=environment, run_seconds=run_seconds, as_json=json)))
