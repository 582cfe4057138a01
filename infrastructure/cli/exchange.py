"""``quantum-trader exchange``: the paper exchange alone, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from infrastructure.cli.options import DEFAULT_SYMBOLS, DEFAULT_TIMEFRAME


def exchange(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of REST and streams; 0 takes a free one.")] = 8100,
    admin_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the books and of faults to inject; none without it.")
    ] = None,
    candles: Annotated[str, typer.Option(help="A folder of candle files, or synthetic.")] = "synthetic",
    symbols: Annotated[str, typer.Option(help="Markets to offer, separated by commas.")] = DEFAULT_SYMBOLS,
    timeframe: Annotated[str, typer.Option(help="Length of the candles that drive the market.")] = DEFAULT_TIMEFRAME,
    seed: Annotated[int, typer.Option(help="Of the synthetic market.")] = 1,
    speed: Annotated[float, typer.Option(min=0.001, max=3600.0, help="Market seconds per wall second.")] = 1.0,
) -> None:
    """Run the paper exchange until Ctrl-C; its key and secret are paper."""
    from infrastructure.paper_exchange.__main__ import main as run_exchange

    arguments = {
        "--port": port,
        "--admin-port": admin_port,
        "--candles": candles,
        "--symbols": symbols,
        "--timeframe": timeframe,
        "--seed": seed,
        "--speed": speed,
    }
    given = [part for name, value in arguments.items() if value is not None for part in (name, str(value))]
    raise typer.Exit(run_exchange(given))
