"""Closed candles of the exchange: the past by REST, the present from its kline stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from services.ai_service.domain.windows import epoch_ms
from services.ai_service.ports import Restarted, Unusable
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import InvalidInputError
from shared.exchange.client import STREAM_CONNECTED, BinanceUsdm
from shared.exchange.klines import candle_from_event, candle_from_row
from shared.exchange.outcome import translate
from shared.trading.candles import Candle, expected_last_open
from shared.trading.instruments import timeframe_duration

log = structlog.get_logger(__name__)

#: Most candles that Binance gives at once.
_PAGE = 1500
#: A candle is taken from REST only when it closed this long ago, market time: our clock may run ahead of the
#: exchange's, and then the newest row would still be moving.
_SETTLED_AFTER = timedelta(seconds=2)


class ExchangeLink:
    """The component that owns the client: says how the exchange answers, and closes the connections at the end.

    Attributes:
        name: Component name.
    """

    name = "exchange"

    def __init__(self, client: BinanceUsdm, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def start(self) -> None:
        """Nothing to open: the client connects at the first request."""

    async def stop(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def ping(self) -> float:
        """Return the round trip of the smallest request, milliseconds.

        Raises:
            TransientError: The exchange does not answer.
        """
        began = self._clock.monotonic()
        try:
            await self._client.fapiPublicGetTime()
        except Exception as error:
            raise translate(error) from error
        return (self._clock.monotonic() - began) * 1000


class ExchangeCandleHistory:
    """``CandleHistory`` over ``GET /fapi/v1/klines``."""

    def __init__(self, client: BinanceUsdm, market_clock: Clock) -> None:
        self._client = client
        self._market_clock = market_clock

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Candle]:
        """Return the closed candles in ``[start, end)``; see ``CandleHistory.candles``."""
        step = timeframe_duration(timeframe)
        newest = expected_last_open(self._market_clock.now() - _SETTLED_AFTER, timeframe)
        last = min(end, newest + step)
        found: list[Candle] = []
        while start < last:
            rows = await self._page(symbol, timeframe, start, last)
            found.extend(_usable(symbol, timeframe, rows, start, last))
            if len(rows) < _PAGE:
                break
            start = max(start + step, _opened(rows[-1]) + step)
        return found

    async def _page(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Any]:
        wanted = (end - start) // timeframe_duration(timeframe)
        question = {
            "symbol": symbol,
            "interval": timeframe,
            "startTime": epoch_ms(start),
            "endTime": epoch_ms(end) - 1,
            "limit": max(1, min(_PAGE, wanted)),
        }
        try:
            rows = await self._client.fapiPublicGetKlines(question)
        except Exception as error:
            raise translate(error) from error
        return rows if isinstance(rows, list) else []


def _opened(row: Sequence[Any]) -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(milliseconds=int(row[0]))


def _usable(symbol: str, timeframe: str, rows: Sequence[Any], start: datetime, end: datetime) -> list[Candle]:
    """Return the candles among ``rows``; what has impossible values is refused loudly and left out."""
    candles = []
    for row in rows:
        try:
            candle = candle_from_row(symbol, timeframe, row)
        except (InvalidInputError, TypeError, ValueError) as error:
            log.error("candle_refused", symbol=symbol, source="rest", reason=str(error))
            continue
        if start <= candle.open_time < end:
            candles.append(candle)
    return candles


class ExchangeCandleStream:
    """``CandleStream`` over the client's kline stream, which reconnects by itself."""

    def __init__(self, client: BinanceUsdm, symbols: Sequence[str], timeframe: str) -> None:
        self._client = client
        self._symbols = tuple(symbols)
        self._timeframe = timeframe

    async def arrivals(self) -> AsyncIterator[Candle | Unusable | Restarted]:
        """Yield closed candles, and a ``Restarted`` after each (re)connect."""
        following = asyncio.create_task(self._client.follow_klines(self._symbols, self._timeframe), name="klines")
        try:
            while True:
                message = await self._client.closed_klines.get()
                yield Restarted() if message.get("e") == STREAM_CONNECTED else self._read(message)
        finally:
            await end_task(following)

    def _read(self, message: dict[str, Any]) -> Candle | Unusable:
        try:
            candle = candle_from_event(message)
        except (InvalidInputError, TypeError, ValueError) as error:
            return Unusable(self._symbol_of(message), str(error))
        if candle.symbol not in self._symbols or candle.timeframe != self._timeframe:
            return Unusable(None, f"{candle.symbol} {candle.timeframe} was not asked for")
        return candle

    def _symbol_of(self, message: dict[str, Any]) -> str | None:
        symbol = message.get("s")
        return symbol if symbol in self._symbols else None
