"""What ``quantum-trader up`` was asked for, checked value by value before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infrastructure.cli.options import DEFAULT_SYMBOLS, DEFAULT_TIMEFRAME
from infrastructure.supervisor.paper_run import RunOptions, check_mode
from shared.errors import ConfigurationError, InvalidInputError
from shared.trading.instruments import timeframe_duration, venue_symbol


def read_options(
    environment: Mapping[str, str],
    *,
    candles: str,
    symbols: str | None,
    timeframe: str | None,
    speed: float,
    seed: int,
    port_base: int,
    state_dir: Path,
) -> RunOptions:
    """Return the options of a run; what the command line leaves out comes from the environment.

    Raises:
        ConfigurationError: A value is wrong; one line that says which and why.
    """
    check_mode(environment)
    if candles == "live":
        raise ConfigurationError(
            "candles from Binance (live) are not offered by this version; give a folder of candle files or synthetic"
        )
    return RunOptions(
        candles=candles if candles == "synthetic" else _candle_folder(candles),
        symbols=_symbols(symbols or environment.get("QT_SYMBOLS", DEFAULT_SYMBOLS)),
        timeframe=_timeframe(timeframe or environment.get("QT_TIMEFRAME", DEFAULT_TIMEFRAME)),
        speed=speed,
        seed=seed,
        state_dir=state_dir,
        port_base=port_base,
    )


def _candle_folder(text: str) -> str:
    folder = Path(text)
    if not folder.is_dir():
        raise ConfigurationError(
            f"candle folder {text} does not exist; name a folder with files such as BTC_USDT_USDT-1h-futures.parquet, "
            "or synthetic"
        )
    # Absolute, because the exchange is a process of its own.
    return str(folder.absolute())


def _symbols(text: str) -> tuple[str, ...]:
    try:
        symbols = [venue_symbol(part.strip().upper()) for part in text.split(",") if part.strip()]
    except InvalidInputError as error:
        raise ConfigurationError(str(error)) from error
    if not symbols:
        raise ConfigurationError(f"symbols {text!r} name no market; give for example {DEFAULT_SYMBOLS}")
    return tuple(dict.fromkeys(symbols))


def _timeframe(text: str) -> str:
    try:
        timeframe_duration(text)
    except InvalidInputError as error:
        raise ConfigurationError(str(error)) from error
    return text
