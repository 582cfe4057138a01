"""Figures that cost a fraction of a microsecond to note: plain numbers, put into Prometheus' form when somebody asks.

The counters of ``prometheus_client`` take a lock and look their labels up each time, which is felt at tens of thousands
of events per second. Here a series is an entry of a dict. No lock is needed: CPython 3.11 and 3.12 switch threads at
calls and loops, never inside of ``+= 1``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

#: Values of the labels after ``service``, in the order of the figure's labels.
Labels: TypeAlias = tuple[str, ...]
#: Tells a figure when it is asked for.
Read: TypeAlias = Callable[[], Mapping[Labels, float]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What one figure is called and means.

    Attributes:
        kind: How it behaves.
        name: As scraped; its end says the unit: ``_seconds``, ``_bytes``, ``_total`` for counts that only grow.
        meaning: One line for a person.
        labels: Names of its labels; ``service`` is the first.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    meaning: str
    labels: tuple[str, ...]


class CounterFamily(Collector):
    """Numbers that only grow, one per combination of labels."""

    def __init__(self, figure: Figure, service: str) -> None:
        self.figure = figure
        self._service = service
        self._values: defaultdict[Labels, float] = defaultdict(float)
        self._read: Read = dict

    def add(self, *labels: str, amount: float = 1) -> None:
        """Add ``amount`` to one series."""
        self._values[labels] += amount

    def follow(self, read: Read) -> None:
        """Show what ``read`` returns, besides what is added here."""
        self._read = read

    def describe(self) -> Iterator[Metric]:
        yield self._empty()

    def collect(self) -> Iterator[Metric]:
        family = self._empty()
        for labels, value in {**self._values, **self._read()}.items():
            family.add_metric([self._service, *labels], value)
        yield family

    def _empty(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.figure.name, self.figure.meaning, labels=self.figure.labels)


class GaugeFamily(Collector):
    """Numbers that go up and down, one per combination of labels."""

    def __init__(self, figure: Figure, service: str) -> None:
        self.figure = figure
        self._service = service
        self._values: dict[Labels, float] = {}
        self._reads: dict[Labels, Callable[[], float]] = {}

    def set(self, *labels: str, value: float) -> None:
        """Note the present value of one series."""
        self._values[labels] = value

    def follow(self, *labels: str, read: Callable[[], float]) -> None:
        """Ask ``read`` for the value of one series whenever somebody scrapes."""
        self._reads[labels] = read

    def describe(self) -> Iterator[Metric]:
        yield self._empty()

    def collect(self) -> Iterator[Metric]:
        family = self._empty()
        for labels, value in self._values.items():
            family.add_metric([self._service, *labels], value)
        for labels, read in self._reads.items():
            try:
                family.add_metric([self._service, *labels], read())
            except Exception:  # noqa: BLE001, S112 - a part that cannot tell must not silence the others
                continue
        yield family

    def _empty(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.figure.name, self.figure.meaning, labels=self.figure.labels)


@dataclass(slots=True, eq=False)
class _Timings:
    """One series of a histogram: how many fell into each bucket, the last one being without bound."""

    buckets: list[int]
    total_seconds: float = field(default=0.0)


class HistogramFamily(Collector):
    """Durations in buckets, one row of them per combination of labels."""

    def __init__(self, figure: Figure, service: str, bounds: Sequence[float]) -> None:
        """Prepare, without series.

        Args:
            figure: Name and labels.
            service: Value of the label ``service``.
            bounds: Upper bounds of the buckets, seconds, ascending; one without bound is added.
        """
        self.figure = figure
        self._service = service
        self._bounds = tuple(bounds)
        self._names = [*map(floatToGoString, self._bounds), "+Inf"]
        self._series: dict[Labels, _Timings] = {}

    def observe(self, *labels: str, seconds: float) -> None:
        """Note one duration."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Timings([0] * len(self._names))
        series.buckets[bisect_left(self._bounds, seconds)] += 1
        series.total_seconds += seconds

    def describe(self) -> Iterator[Metric]:
        yield self._empty()

    def collect(self) -> Iterator[Metric]:
        family = self._empty()
        for labels, series in self._series.items():
            buckets = list(zip(self._names, accumulate(series.buckets), strict=True))
            family.add_metric([self._service, *labels], buckets=buckets, sum_value=series.total_seconds)
        yield family

    def _empty(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.figure.name, self.figure.meaning, labels=self.figure.labels)
