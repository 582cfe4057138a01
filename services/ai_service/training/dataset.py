"""From candles to rows that a model can learn from, each knowing the span of time that its label depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from services.ai_service.domain.features import ATR_PCT_COLUMN, WINDOW_CANDLES, feature_row
from services.ai_service.domain.labels import BarrierRule, label_barriers
from services.ai_service.domain.windows import CandleColumns, Floats, Milliseconds, columns_of
from shared.errors import InvalidInputError
from shared.trading.candles import Candle

#: Told how many feature rows are done and how many there will be.
RowCount = Callable[[int, int], None]

_REPORT_EVERY_ROWS = 500


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled rows of all symbols in order of time.

    Attributes:
        features: Shape ``(rows, len(FEATURE_NAMES))``.
        went_up: Whether the upper barrier (or a higher close) came first.
        gain: Price change until then, in units of the barrier distance, -1 to 1, never 0.
        weight: Uniqueness: rows whose label shares its candles with many others count less; 1 on average.
        opened_ms: Open time of the row's last candle, milliseconds since 1970.
        decided_ms: Open time of the last candle that the label depends on.
    """

    features: Floats
    went_up: NDArray[np.bool_]
    gain: Floats
    weight: Floats
    opened_ms: Milliseconds
    decided_ms: Milliseconds

    def __len__(self) -> int:
        return len(self.went_up)

    def rows(self, index: NDArray[np.int64]) -> Dataset:
        """Return the rows at ``index``."""
        return Dataset(
            self.features[index],
            self.went_up[index],
            self.gain[index],
            self.weight[index],
            self.opened_ms[index],
            self.decided_ms[index],
        )


def build_dataset(
    candles: Mapping[str, Sequence[Candle]], rule: BarrierRule, report: RowCount = lambda done, total: None
) -> Dataset:
    """Return the labelled rows of all symbols.

    Args:
        candles: Candles by symbol, oldest first; a hole splits a symbol's candles into runs that are used apart.
        rule: What is labelled.
        report: Told about the progress now and then.

    Raises:
        InvalidInputError: No symbol has a run that is long enough for one labelled row.
    """
    shortest = WINDOW_CANDLES + rule.horizon_candles
    runs = [run for symbol in sorted(candles) for run in _runs(candles[symbol]) if len(run) >= shortest]
    if not runs:
        raise InvalidInputError(f"no symbol has {shortest} candles in a row: give a longer history")
    total = sum(len(run) - WINDOW_CANDLES + 1 for run in runs)
    done = 0
    parts = []
    for run in runs:
        parts.append(_label_run(columns_of(run), rule, partial(_report_from, report, done, total)))
        done += len(run) - WINDOW_CANDLES + 1
    return _joined(parts)


def _report_from(report: RowCount, before: int, total: int, rows: int) -> None:
    report(before + rows, total)


def _runs(candles: Sequence[Candle]) -> Iterable[list[Candle]]:
    run: list[Candle] = []
    for candle in candles:
        if run and candle.open_time != run[-1].close_time:
            yield run
            run = []
        run.append(candle)
    if run:
        yield run


def _label_run(series: CandleColumns, rule: BarrierRule, report: Callable[[int], None]) -> Dataset:
    entries = np.arange(WINDOW_CANDLES - 1, len(series) - rule.horizon_candles, dtype=np.int64)
    rows = []
    for number, entry in enumerate(entries, start=1):
        rows.append(feature_row(series.between(int(entry) - WINDOW_CANDLES + 1, int(entry) + 1)))
        if number % _REPORT_EVERY_ROWS == 0:
            report(number)
    features = np.array(rows, dtype=np.float64)
    labels = label_barriers(series, entries, features[:, ATR_PCT_COLUMN], rule)
    decided = labels.direction != 0
    return Dataset(
        features=features[decided],
        went_up=labels.direction[decided] > 0,
        gain=labels.gain[decided],
        weight=_uniqueness(entries[decided], labels.last_index[decided], len(series)),
        opened_ms=series.open_time_ms[entries[decided]],
        decided_ms=series.open_time_ms[labels.last_index[decided]],
    )


def _uniqueness(first: NDArray[np.int64], last: NDArray[np.int64], length: int) -> Floats:
    """Return per label the mean over its candles of 1 / (labels that depend on that candle)."""
    changes = np.zeros(length + 1)
    np.add.at(changes, first + 1, 1.0)
    np.add.at(changes, last + 1, -1.0)
    shared = np.maximum(np.cumsum(changes)[:-1], 1.0)
    running = np.concatenate([[0.0], np.cumsum(1 / shared)])
    weights: Floats = (running[last + 1] - running[first + 1]) / (last - first)
    return weights


def _joined(parts: Sequence[Dataset]) -> Dataset:
    def column(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part in parts])

    joined = Dataset(**{name: column(name) for name in Dataset.__slots__})  # type: ignore[arg-type]  # same columns
    if len(joined) == 0:
        raise InvalidInputError("no candle has a decided label: the market did not move at all")
    ordered = joined.rows(np.argsort(joined.opened_ms, kind="stable"))
    ordered.weight[:] /= ordered.weight.mean()
    return ordered
