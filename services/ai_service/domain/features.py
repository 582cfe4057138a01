"""What a model sees of the market: one row of scale-free numbers per candle, the same code in training and serving.

Every feature is a function of exactly ``WINDOW_CANDLES`` candles that end at the candle in question. TA-Lib's
exponential averages remember where they started, so computing them over the whole history in training and over a
window in serving would give two different numbers; a window of fixed length in both gives one.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import talib

from services.ai_service.domain.windows import CandleColumns, Floats
from shared.errors import InvalidInputError

#: Candles that one row is computed from. 128 leave TA-Lib's slowest average here (MACD 26 + 9) well warmed up.
WINDOW_CANDLES = 128

RETURN_LAGS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)

#: Order of the numbers in a row; a model's manifest repeats it.
FEATURE_NAMES: tuple[str, ...] = (
    *(f"return_{lag}" for lag in RETURN_LAGS),
    "rsi_7",
    "rsi_14",
    "macd_histogram",
    "macd_signal_gap",
    "atr_pct",
    "atr_ratio",
    "volatility_ratio",
    "bollinger_position",
    "bollinger_width",
    "adx",
    "directional_index",
    "stochastic_k",
    "money_flow",
    "ema_gap_12",
    "ema_gap_48",
    "range_position_30",
    "range_position_120",
    "body_share",
    "upper_wick_share",
    "lower_wick_share",
    "volume_zscore",
    "volume_trend",
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
)

#: Column of the average true range in percent of price; labels and barriers are scaled by it.
ATR_PCT_COLUMN = FEATURE_NAMES.index("atr_pct")

#: Changes whenever a name, the order, the window or the meaning (first number) changes.
FEATURE_SCHEMA = "1-" + hashlib.sha256("\x1f".join((str(WINDOW_CANDLES), *FEATURE_NAMES)).encode()).hexdigest()[:16]

_DAY_MS = 86_400_000
_WEEK_MS = 7 * _DAY_MS
#: 1970-01-01 was a Thursday; weeks here begin on Monday.
_MONDAY_OFFSET_MS = 3 * _DAY_MS
#: Below this a price range counts as flat: about the noise of float64 on prices.
_TINY = 1e-12


def feature_row(window: CandleColumns) -> Floats:
    """Return the features at the last candle of ``window``, shape ``(len(FEATURE_NAMES),)``, all finite.

    Raises:
        InvalidInputError: ``window`` does not hold exactly ``WINDOW_CANDLES`` candles.
    """
    if len(window) != WINDOW_CANDLES:
        raise InvalidInputError(f"a feature row needs {WINDOW_CANDLES} candles, was given {len(window)}")
    log_close = np.log(window.close)
    steps = np.diff(log_close)
    return np.array(
        [
            *_returns(log_close, steps),
            *_momentum(window),
            *_volatility(window, steps),
            *_trend(window),
            *_places(window),
            *_last_candle(window),
            *_volume(window.volume),
            *_calendar(int(window.open_time_ms[-1])),
        ],
        dtype=np.float64,
    )


def feature_matrix(series: CandleColumns) -> Floats:
    """Return the rows at every candle of ``series`` that has a whole window behind it, shape ``(rows, features)``.

    Row ``i`` belongs to candle ``i + WINDOW_CANDLES - 1``.
    """
    rows = [feature_row(series.between(stop - WINDOW_CANDLES, stop)) for stop in range(WINDOW_CANDLES, len(series) + 1)]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURE_NAMES))


def _returns(log_close: Floats, steps: Floats) -> list[float]:
    """Log returns over several lags in units of their own expected size, cut at 8 of them."""
    deviation = float(steps.std())
    return [
        _clip(_ratio(float(log_close[-1] - log_close[-1 - lag]), deviation * math.sqrt(lag)), 8.0)
        for lag in RETURN_LAGS
    ]


def _momentum(window: CandleColumns) -> list[float]:
    close = window.close
    atr = _last(talib.ATR(window.high, window.low, close, 14))
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    return [
        _last(talib.RSI(close, 7)) / 100,
        _last(talib.RSI(close, 14)) / 100,
        _clip(_ratio(_last(histogram), atr), 20.0),
        _clip(_ratio(_last(macd) + _last(signal), atr), 20.0),
    ]


def _volatility(window: CandleColumns, steps: Floats) -> list[float]:
    high, low, close = window.high, window.low, window.close
    fast, slow = _last(talib.ATR(high, low, close, 14)), _last(talib.ATR(high, low, close, 90))
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0, 0)
    band = _last(upper) - _last(lower)
    return [
        100 * fast / float(close[-1]),
        _clip(_ratio(fast, slow), 20.0),
        _clip(_ratio(float(steps[-20:].std()), float(steps.std())), 20.0),
        _clip(_ratio(float(close[-1]) - _last(middle), band), 4.0),
        100 * band / _last(middle),
    ]


def _trend(window: CandleColumns) -> list[float]:
    high, low, close = window.high, window.low, window.close
    slow_k, _ = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    plus, minus = _last(talib.PLUS_DI(high, low, close, 14)), _last(talib.MINUS_DI(high, low, close, 14))
    return [
        _last(talib.ADX(high, low, close, 14)) / 100,
        (plus - minus) / 100,
        _last(slow_k) / 100,
        _last(talib.MFI(high, low, close, window.volume, 14)) / 100,
    ]


def _places(window: CandleColumns) -> list[float]:
    """Where the price stands: against its averages (in true ranges) and inside its recent ranges (0 to 1)."""
    close, price = window.close, float(window.close[-1])
    atr = _last(talib.ATR(window.high, window.low, close, 14))
    gaps = [_clip(_ratio(price - _last(talib.EMA(close, length)), atr), 40.0) for length in (12, 48)]
    ranges = []
    for length in (30, 120):
        bottom, top = float(window.low[-length:].min()), float(window.high[-length:].max())
        ranges.append(_ratio(price - bottom, top - bottom, flat=0.5))
    return [*gaps, *ranges]


def _last_candle(window: CandleColumns) -> list[float]:
    first, high, low, last = (float(column[-1]) for column in (window.open, window.high, window.low, window.close))
    height = high - low
    return [
        _ratio(last - first, height),
        _ratio(high - max(first, last), height),
        _ratio(min(first, last) - low, height),
    ]


def _volume(volume: Floats) -> list[float]:
    average = float(volume.mean())
    logs = np.log1p(volume / average) if average > _TINY else np.zeros_like(volume)
    zscore = _ratio(float(logs[-1] - logs.mean()), float(logs.std()))
    return [_clip(zscore, 8.0), _clip(float(logs[-5:].mean() - logs[-60:].mean()), 8.0)]


def _calendar(open_time_ms: int) -> list[float]:
    day = 2 * math.pi * (open_time_ms % _DAY_MS) / _DAY_MS
    week = 2 * math.pi * ((open_time_ms + _MONDAY_OFFSET_MS) % _WEEK_MS) / _WEEK_MS
    return [math.sin(day), math.cos(day), math.sin(week), math.cos(week)]


def _last(column: Floats) -> float:
    """Return the newest value of an indicator; a flat market makes some of them 0 / 0, which counts as 0."""
    value = float(column[-1])
    return value if math.isfinite(value) else 0.0


def _ratio(numerator: float, denominator: float, *, flat: float = 0.0) -> float:
    return numerator / denominator if abs(denominator) > _TINY else flat


def _clip(value: float, bound: float) -> float:
    return max(-bound, min(bound, value))
