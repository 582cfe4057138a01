"""``python -m infrastructure.paper_exchange``: the paper exchange as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import structlog

from infrastructure.paper_exchange.candle_sources import default_start, open_source
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.matching_engine import DEFAULT_WALLET, MatchingEngine
from infrastructure.paper_exchange.request_security import Credentials
from infrastructure.paper_exchange.server import bind, serving
from shared.clock import ClockOrigin, ScaledClock, SystemClock
from shared.errors import ConfigurationError, InvalidInputError, QuantumTraderError
from shared.telemetry.logs import configure_logging
from shared.trading.instruments import timeframe_duration, venue_symbol

log = structlog.get_logger("paper_exchange")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exchange until SIGINT or SIGTERM; return 0 when it ended, 1 when it failed, 4 on wrong settings."""
    configure_logging("paper-exchange")
    try:
        asyncio.run(_run(_parse(arguments)))
    except QuantumTraderError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one line that people read
        return 4 if isinstance(error, (ConfigurationError, InvalidInputError)) else 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m infrastructure.paper_exchange",
        description="A Binance USD-M look-alike on this machine: REST and WebSocket, paper money.",
    )
    parser.add_argument("--port", type=int, default=8100, help="port of REST and streams; 0 takes a free one")
    parser.add_argument("--admin-port", type=int, help="port of the admin interface; none without it")
    parser.add_argument("--candles", default="synthetic", help="folder of candle files, or 'synthetic'")
    parser.add_argument("--symbols", default="BTC/USDT:USDT,ETH/USDT:USDT,SOL/USDT:USDT", help="comma separated")
    parser.add_argument("--timeframe", default="1h", help="timeframe of the candles that drive the market")
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the synthetic market, and of the way inside each candle"
    )
    parser.add_argument("--wallet", default=str(DEFAULT_WALLET), help="deposit of the account, USDT")
    parser.add_argument("--clock-file", type=Path, help="JSON with wall, market and rate; tells the market time")
    parser.add_argument("--start", help="market start, ISO 8601, when there is no clock file")
    parser.add_argument("--speed", type=float, default=1.0, help="market seconds per wall second, without clock file")
    parser.add_argument("--api-key", default="paper")
    parser.add_argument("--api-secret", default="paper")
    return parser.parse_args(arguments)


async def _run(options: argparse.Namespace) -> None:
    clock = SystemClock()
    symbols = [venue_symbol(part.strip()) for part in options.symbols.split(",") if part.strip()]
    if not symbols or len(set(symbols)) < len(symbols):
        raise ConfigurationError(f"--symbols is {options.symbols!r}; name each symbol once, separated by commas")
    timeframe_duration(options.timeframe)
    listener = bind(options.port, "--port")
    admin = None if options.admin_port is None else bind(options.admin_port, "--admin-port")
    source = open_source(options.candles, symbols, options.timeframe, seed=options.seed)
    origin = _origin(options, default_start(source, clock.now()), clock.now())
    exchange = LiveExchange(
        MatchingEngine(source, start=origin.market, wallet=_wallet(options.wallet), seed=options.seed),
        clock=clock,
        market_clock=ScaledClock(origin),
        credentials=Credentials(options.api_key, options.api_secret),
    )
    stop = _stop_asked_for()
    async with serving(exchange, listener, admin):
        log.info(
            "paper_exchange_ready",
            port=listener.getsockname()[1],
            admin_port=admin.getsockname()[1] if admin else None,
            symbols=symbols,
            timeframe=options.timeframe,
            market_time=origin.market.isoformat(),
            speed=origin.rate,
        )
        await stop.wait()


def _origin(options: argparse.Namespace, start: datetime, now: datetime) -> ClockOrigin:
    if options.clock_file is not None:
        return ClockOrigin.load(options.clock_file)
    if options.speed <= 0:
        raise ConfigurationError(f"--speed is {options.speed}; it must be above 0")
    return ClockOrigin(wall=now, market=_moment(options.start) if options.start else start, rate=options.speed)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--start is {text!r}; write it as 2025-05-20T00:00:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _wallet(text: str) -> Decimal:
    with contextlib.suppress(ArithmeticError):
        if (amount := Decimal(text)) > 0 and amount.is_finite():
            return amount
    raise ConfigurationError(f"--wallet is {text!r}; give an amount above 0")


def _stop_asked_for() -> asyncio.Event:
    """Return what is set by SIGINT or SIGTERM from now on: whoever can reach the exchange can also end it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop


if __name__ == "__main__":
    sys.exit(main())
