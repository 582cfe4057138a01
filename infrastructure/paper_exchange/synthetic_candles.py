"""A made-up market: seeded, without end, with regimes, common moves and fat tails.

Days are the unit. A chain of daily closes runs from a fixed first day, moved by a market factor, the symbol's own
noise and the day's regime. The minutes of a day are a bridge between two closes, drawn from a generator that is named
by (seed, symbol, day) alone. So a candle is the same whatever was asked before, and days far apart cost nothing.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import numpy as np

from shared.errors import ConfigurationError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

_FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
_MINUTES = 1440
#: Days that are drawn together in the daily chain.
_CHUNK = 512
_BASE_PRICES = {"BTCUSDT": 60_000.0, "ETHUSDT": 3_000.0, "BNBUSDT": 600.0, "SOLUSDT": 150.0, "XRPUSDT": 0.6}

_Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class _Regime:
    """How a day behaves: drift and volatility of its close-to-close move (log), and its trading volume."""

    drift: float
    volatility: float
    volume: float


_REGIMES = (
    _Regime(drift=0.0, volatility=0.012, volume=0.7),  # calm
    _Regime(drift=0.015, volatility=0.022, volume=1.0),  # rising
    _Regime(drift=-0.016, volatility=0.026, volume=1.1),  # falling
    _Regime(drift=0.0, volatility=0.050, volume=2.0),  # turbulent
)
#: Row: today's regime; column: tomorrow's.
_SWITCH = np.array(
    [
        [0.80, 0.09, 0.08, 0.03],
        [0.10, 0.80, 0.04, 0.06],
        [0.09, 0.05, 0.78, 0.08],
        [0.20, 0.15, 0.15, 0.50],
    ]
)
#: Share of a symbol's daily variance that it has in common with the others.
_COMMON = 0.65
#: Pull of the daily close back to the base price, per day.
_PULL = 0.004
#: Degrees of freedom of the minutes' Student t: fat tails, finite variance.
_TAIL = 4.0


class SyntheticCandleSource:
    """Candles out of a seed.

    Args:
        seed: The same seed gives the same market.
        symbols: Venue symbols; any name is good.
        timeframe: 1m to 1d.

    Raises:
        ConfigurationError: The timeframe is longer than a day or does not divide one.
    """

    def __init__(self, seed: int, symbols: Sequence[str], timeframe: str) -> None:
        self._length: timedelta = timeframe_duration(timeframe)
        if timedelta(days=1) % self._length:
            raise ConfigurationError(f"the synthetic market has no {timeframe} candles; choose one that divides a day")
        self._seed = seed
        self._symbols = tuple(symbols)
        self._timeframe = timeframe
        self._chain = _DailyChain(seed)
        self._day = lru_cache(maxsize=2048)(self._build_day)

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._symbols

    @property
    def timeframe(self) -> str:
        return self._timeframe

    def first_open(self, symbol: str) -> datetime:
        return _FIRST_DAY

    def last_open(self, symbol: str) -> datetime | None:
        return None

    def candles(self, symbol: str, start: datetime, end: datetime) -> list[Candle]:
        start = max(start, _FIRST_DAY)
        if start >= end:
            return []
        first = (start - _FIRST_DAY) // timedelta(days=1)
        last = (end - timedelta(microseconds=1) - _FIRST_DAY) // timedelta(days=1)
        return [
            candle
            for day in range(first, last + 1)
            for candle in self._day(symbol, day)
            if start <= candle.open_time < end
        ]

    def funding_rate(self, symbol: str, moment: datetime) -> Decimal | None:
        """Return a rate around Binance's neutral 0.01 %, higher when the regime rises."""
        day, slot = divmod((moment - _FIRST_DAY) // timedelta(hours=8), 3)
        noise = _generator(self._seed, symbol, "funding", day * 3 + slot).standard_normal()
        drift = self._chain.regime(max(0, day)).drift
        return Decimal(str(round(0.0001 + drift * 0.01 + 0.00003 * float(noise), 8)))

    def _build_day(self, symbol: str, day: int) -> list[Candle]:
        opens, highs, lows, closes, volumes = self._minutes(symbol, day)
        width = int(self._length.total_seconds()) // 60
        start = _FIRST_DAY + timedelta(days=day)
        return [
            Candle(
                symbol=symbol,
                timeframe=self._timeframe,
                open_time=start + number * self._length,
                open=float(opens[cut][0]),
                high=float(highs[cut].max()),
                low=float(lows[cut].min()),
                close=float(closes[cut][-1]),
                volume=round(float(volumes[cut].sum()), 3),
            )
            for number, cut in enumerate(slice(at, at + width) for at in range(0, _MINUTES, width))
        ]

    def _minutes(self, symbol: str, day: int) -> tuple[_Floats, _Floats, _Floats, _Floats, _Floats]:
        """Return open, high, low, close and volume of the day's minutes."""
        rng = _generator(self._seed, symbol, "minutes", day)
        regime = self._chain.regime(day)
        start, end = self._chain.close(symbol, day), self._chain.close(symbol, day + 1)
        scale = regime.volatility / np.sqrt(_MINUTES)
        common = _generator(self._seed, "market", "minutes", day).standard_t(_TAIL, _MINUTES)
        walk = np.cumsum(_mixed(common, rng.standard_t(_TAIL, _MINUTES)) * scale) + _swings(rng, regime)
        share = np.arange(1, _MINUTES + 1) / _MINUTES
        path = start + walk + share * (end - start - walk[-1])  # a bridge: it ends on the day's close
        tick = _tick(symbol)
        closes = np.maximum(tick, np.round(np.exp(path) / tick) * tick)
        opens = np.concatenate(([max(tick, float(np.round(np.exp(start) / tick) * tick))], closes[:-1]))
        wick = np.abs(rng.standard_t(_TAIL, (2, _MINUTES))) * scale * 0.5
        highs = np.ceil(np.maximum(opens, closes) * (1 + wick[0]) / tick) * tick
        lows = np.maximum(tick, np.floor(np.minimum(opens, closes) * (1 - wick[1]) / tick) * tick)
        moves = np.abs(np.log(closes / opens)) / scale
        value = 3e6 * regime.volume * np.exp(0.5 * rng.standard_normal(_MINUTES)) * (0.5 + 0.5 * moves)
        volumes = np.round(value * _popularity(symbol) / closes, 3)
        opens, highs, lows, closes = (np.round(prices, 8) for prices in (opens, highs, lows, closes))
        return opens, highs, lows, closes, volumes


class _DailyChain:
    """Log closes and regimes of every day since the first, drawn in chunks that depend only on their number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._regimes: list[int] = [0]
        self._closes: dict[str, list[float]] = {}

    def regime(self, day: int) -> _Regime:
        while len(self._regimes) <= day:
            number = (len(self._regimes) - 1) // _CHUNK
            draws = _generator(self._seed, "market", "regimes", number).random(_CHUNK)
            for draw in draws:
                ladder = np.cumsum(_SWITCH[self._regimes[-1]])
                self._regimes.append(min(int(np.searchsorted(ladder, draw)), len(_REGIMES) - 1))
        return _REGIMES[self._regimes[day]]

    def close(self, symbol: str, day: int) -> float:
        """Return the log price with which ``day`` begins."""
        base = float(np.log(_base_price(symbol)))
        closes = self._closes.setdefault(symbol, [base])
        while len(closes) <= day:
            self._extend(symbol, closes, base)
        return closes[day]

    def _extend(self, symbol: str, closes: list[float], base: float) -> None:
        number = (len(closes) - 1) // _CHUNK
        common = _generator(self._seed, "market", "days", number).standard_t(_TAIL, _CHUNK)
        own = _generator(self._seed, symbol, "days", number).standard_t(_TAIL, _CHUNK)
        first = number * _CHUNK
        for offset, move in enumerate(_mixed(common, own).tolist()):
            regime = self.regime(first + offset)
            # No day loses or gains more than a third: beyond that lies no market.
            step = max(-0.4, min(0.3, regime.drift + regime.volatility * move))
            closes.append(closes[-1] + step - _PULL * (closes[-1] - base))


def _mixed(common: _Floats, own: _Floats) -> _Floats:
    """Return draws of unit variance that share ``_COMMON`` of it with the other symbols."""
    spread = math.sqrt(_TAIL / (_TAIL - 2))
    return (common * math.sqrt(_COMMON) + own * math.sqrt(1 - _COMMON)) / spread


def _swings(rng: np.random.Generator, regime: _Regime) -> _Floats:
    """Return slow waves of one to six hours: the part of the minutes that a model can learn."""
    minutes = np.arange(_MINUTES)
    waves = np.zeros(_MINUTES)
    for period, phase in zip(rng.uniform(60, 360, 3), rng.uniform(0, 2 * np.pi, 3), strict=True):
        waves += np.sin(2 * np.pi * minutes / period + phase) - np.sin(phase)
    return waves * regime.volatility * 0.08


def _generator(seed: int, *names: object) -> np.random.Generator:
    """Return the generator that belongs to these names and to nothing else."""
    words = [seed & 0xFFFFFFFF, *(zlib.crc32(str(name).encode()) for name in names)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def _base_price(symbol: str) -> float:
    known = _BASE_PRICES.get(symbol)
    return known if known is not None else 0.5 + zlib.crc32(symbol.encode()) % 4_000 / 100


def _popularity(symbol: str) -> float:
    """Return the symbol's share of trading value, 1 for the largest."""
    return {"BTCUSDT": 1.0, "ETHUSDT": 0.6, "SOLUSDT": 0.3}.get(symbol, 0.1)


def _tick(symbol: str) -> float:
    return float(10.0 ** (math.floor(math.log10(_base_price(symbol))) - 5))
