"""The figures that ``/metrics`` shows, under the names that the specification gives them.

The table in ``docs/observability.md`` is generated from what is declared here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from shared.clock import Clock
from shared.telemetry.families import CounterFamily, Figure, GaugeFamily, HistogramFamily, Labels
from shared.telemetry.logs import lines_written

#: Upper bounds of the latency histograms, seconds: from a round trip on loopback to a slow exchange.
_LATENCY_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

#: Where a policy was read from.
PolicySource: TypeAlias = Literal["cache", "redis", "snapshot", "builtin"]


class Metrics:
    """Figures of one process, on a registry of its own that is handed to whoever counts.

    Every series carries the label ``service`` first; the methods fill it in. Labels only ever take values out of the
    code or the configuration: what a stranger can choose would make a new series each time.

    Attributes:
        registry: What is scraped.
        figures: What was declared through this object, in that order.
    """

    def __init__(self, service: str, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self.figures: list[Figure] = []
        self._service = service
        ProcessCollector(registry=self.registry)
        began = clock.monotonic()
        uptime = self.gauge("service_uptime_seconds", "Time since the start of the process.")
        uptime.follow(read=lambda: clock.monotonic() - began)
        self.counter("log_lines_total", "Lines written to the log.", "level").follow(_lines_by_level)
        self._declare_events()
        self._declare_redis()
        self._declare_rpc()
        self._declare_policy()
        self._declare_trading()

    # -- events ------------------------------------------------------------------------------------------------------

    def _declare_events(self) -> None:
        count, gauge = self.counter, self.gauge
        self._published = count("events_published_total", "Events published, also into the disk buffer.", "event_type")
        self._untraced = count(
            "events_without_trace_total",
            "Events published outside any trace, which begin one of their own; all others continue one.",
            "event_type",
        )
        self._consumed = count(
            "events_consumed_total",
            "Tries to handle an event, by outcome: ack, retry, dead_letter or expired.",
            "event_type",
            "outcome",
        )
        self._handling = self.histogram("event_handler_seconds", "Time in the handlers of one event.", "event_type")
        self._dead_letters = count("dead_letters_total", "Events put aside: they cannot be handled.", "event_type")
        self._again = count("events_published_again_total", "Events that the store had lost and got once more.")
        self._missing = count("events_missing_total", "Events that never came, by the gaps in their sequences.")
        self._lag = gauge("consumer_lag_seconds", "Age of the event that was settled last, at that moment.")
        self._pending = gauge("consumer_pending_events", "Events taken from the streams and not settled yet.")
        self._lengths = gauge("stream_length", "Entries in a stream.", "stream")

    def event_published(self, event_type: str) -> None:
        """Count one event that reached its stream or the disk buffer."""
        self._published.add(event_type)

    def event_without_trace(self, event_type: str) -> None:
        """Count one published event whose trace id had to be made up, because its publisher worked in no trace."""
        self._untraced.add(event_type)

    def event_consumed(self, event_type: str, outcome: str, seconds: float | None = None) -> None:
        """Count one try.

        Args:
            event_type: Its type.
            outcome: ``ack``, ``retry``, ``dead_letter`` or ``expired``.
            seconds: Time in the handlers, when they ran.
        """
        self._consumed.add(event_type, outcome)
        if seconds is not None:
            self._handling.observe(event_type, seconds=seconds)
        if outcome == "dead_letter":
            self._dead_letters.add(event_type)

    def events_published_again(self, count: int) -> None:
        """Count events that the store had lost."""
        self._again.add(amount=count)

    def events_missing(self, count: int) -> None:
        """Count events of a gap in a producer's sequence."""
        self._missing.add(amount=count)

    def watch_consumer(self, *, lag_seconds: Callable[[], float], pending_events: Callable[[], float]) -> None:
        """Ask these two whenever somebody scrapes."""
        self._lag.follow(read=lag_seconds)
        self._pending.follow(read=pending_events)

    def stream_length(self, stream: str, entries: int) -> None:
        """Note how long a stream is."""
        self._lengths.set(stream, value=entries)

    # -- Redis -------------------------------------------------------------------------------------------------------

    def _declare_redis(self) -> None:
        self._redis = self.histogram("redis_latency_seconds", "Round trip to Redis.")
        self._reconnects = self.counter("redis_reconnects_total", "Connections to Redis made after one was lost.")

    def redis_answered(self, seconds: float) -> None:
        """Note one round trip."""
        self._redis.observe(seconds=seconds)

    def redis_reconnected(self) -> None:
        """Count one connection that followed a lost one."""
        self._reconnects.add()

    # -- RPC ---------------------------------------------------------------------------------------------------------

    def _declare_rpc(self) -> None:
        count, time = self.counter, self.histogram
        self._rpc_calls = count(
            "rpc_calls_total", "RPC calls made, by status: success, error or timeout.", "target", "command", "status"
        )
        self._rpc_call_seconds = time("rpc_call_seconds", "Time from an RPC call to its answer.", "target", "command")
        self._rpc_served = count(
            "rpc_requests_served_total",
            "RPC requests answered, by status: success, error or timeout.",
            "command",
            "status",
        )
        self._rpc_serve_seconds = time("rpc_serve_seconds", "Time in the handler of an RPC request.", "command")

    def rpc_called(self, target: str, status: str, seconds: float, *, command: str = "unknown") -> None:
        """Count one call of ``command`` at ``target`` that ended as SUCCESS, ERROR or TIMEOUT after ``seconds``."""
        self._rpc_calls.add(target, command, status.lower())
        self._rpc_call_seconds.observe(target, command, seconds=seconds)

    def rpc_served(self, command: str, status: str, seconds: float | None = None) -> None:
        """Count one request that this process answered, ``seconds`` of which its handler took when one ran."""
        self._rpc_served.add(command, status.lower())
        if seconds is not None:
            self._rpc_serve_seconds.observe(command, seconds=seconds)

    # -- policy ------------------------------------------------------------------------------------------------------

    def _declare_policy(self) -> None:
        self._policy_reads = self.counter(
            "policy_reads_total", "Reads of the policy, by source: cache, redis, snapshot or builtin.", "source"
        )
        self._policy_read_seconds = self.histogram("policy_read_seconds", "Time to read the policy.", "source")
        self._policy_write_seconds = self.histogram(
            "policy_write_seconds", "Time to change the policy, by outcome: stored, conflict or failed.", "outcome"
        )
        self._policy_mode = self.gauge("policy_mode", "1 for the risk mode in force, 0 for earlier ones.", "mode")
        self._mode_in_force: str | None = None

    def policy_read(
        self, source: Literal["cache", "redis", "snapshot", "builtin"], seconds: float | None = None
    ) -> None:
        """Count one read; give the time where there was something to wait for."""
        self._policy_reads.add(source)
        if seconds is not None:
            self._policy_read_seconds.observe(source, seconds=seconds)

    def policy_written(self, outcome: Literal["stored", "conflict", "failed"], seconds: float) -> None:
        """Note one change that was tried."""
        self._policy_write_seconds.observe(outcome, seconds=seconds)

    def policy_mode(self, mode: str) -> None:
        """Note the risk mode in force."""
        if self._mode_in_force is not None:
            self._policy_mode.set(self._mode_in_force, value=0)
        self._policy_mode.set(mode, value=1)
        self._mode_in_force = mode

    # -- trading -----------------------------------------------------------------------------------------------------

    def _declare_trading(self) -> None:
        count = self.counter
        self._exchange = self.histogram("exchange_latency_seconds", "Round trip of one request.", "endpoint")
        self._orders = count(
            "orders_total", "Orders sent, by outcome: accepted, rejected or unknown.", "order_type", "outcome"
        )
        self._unprotected = self.histogram(
            "position_unprotected_seconds",
            "Time from a fill that no stop covered to the exchange's word that a stop of the whole size rests.",
        )
        self._unprotected_now = self.gauge(
            "position_unprotected_now_seconds",
            "Longest time that a position stands without a stop for all of it; 0 while every position has one.",
        )
        gauge = self.gauge
        self._weight_used = gauge("exchange_weight_used", "Request weight of this minute, of all services together.")
        self._weight_limit = gauge("exchange_weight_limit", "Request weight per minute that the exchange allows.")
        self._paused = gauge("exchange_paused_seconds", "Time until requests may go out again, 0 when they may.")
        self._clock_offset = gauge("exchange_clock_offset_seconds", "The exchange's clock minus the machine's.")
        self._predictions = count("predictions_total", "Predictions made.", "model")
        self._candles_refused = count("candles_refused_total", "Candles with impossible values.")
        self._candles_repaired = count("candles_repaired_total", "Candles that had to be fetched by REST.")
        self._candles_missing = count("candles_missing_total", "Candles that the exchange never gave.")

    def exchange_answered(self, endpoint: str, seconds: float) -> None:
        """Note one round trip; ``endpoint`` is method and path without parameters, ``POST /fapi/v1/order``."""
        self._exchange.observe(endpoint, seconds=seconds)

    def watch_exchange_requests(
        self, *, used: Callable[[], float], limit: Callable[[], float], paused_seconds: Callable[[], float]
    ) -> None:
        """Ask these three whenever somebody scrapes."""
        self._weight_used.follow(read=used)
        self._weight_limit.follow(read=limit)
        self._paused.follow(read=paused_seconds)

    def watch_exchange_clock(self, offset_seconds: Callable[[], float]) -> None:
        """Ask for the offset whenever somebody scrapes."""
        self._clock_offset.follow(read=offset_seconds)

    def order_sent(self, order_type: str, outcome: str) -> None:
        """Count one order request that ended as ``accepted``, ``rejected`` or ``unknown``."""
        self._orders.add(order_type, outcome.lower())

    def position_protected(self, seconds: float) -> None:
        """Note how long a position had no stop, now that it has one or is gone."""
        self._unprotected.observe(seconds=seconds)

    def watch_unprotected(self, seconds: Callable[[], float]) -> None:
        """Ask ``seconds`` for the longest present time without a stop whenever somebody scrapes."""
        self._unprotected_now.follow(read=seconds)

    def predicted(self, model: str) -> None:
        """Count one prediction of ``model``."""
        self._predictions.add(model)

    def candle_refused(self) -> None:
        """Count one candle with impossible values."""
        self._candles_refused.add()

    def candle_repaired(self) -> None:
        """Count one candle that came by REST because the stream did not bring it."""
        self._candles_repaired.add()

    def candles_missing(self, count: int) -> None:
        """Count candles that were given up."""
        self._candles_missing.add(amount=count)

    # -- scraping ----------------------------------------------------------------------------------------------------

    def render(self) -> tuple[bytes, str]:
        """Return the body and the content type of ``/metrics``."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # -- figures of components ---------------------------------------------------------------------------------------

    def counter(self, name: str, meaning: str, *labels: str) -> CounterFamily:
        """Add a figure that only grows; ``service`` comes before ``labels``.

        Raises:
            ValueError: There is a figure of that name.
        """
        family = CounterFamily(self._figure("counter", name, meaning, labels), self._service)
        self.registry.register(family)
        return family

    def gauge(self, name: str, meaning: str, *labels: str) -> GaugeFamily:
        """Add a figure that goes up and down; see ``counter``."""
        family = GaugeFamily(self._figure("gauge", name, meaning, labels), self._service)
        self.registry.register(family)
        return family

    def histogram(self, name: str, meaning: str, *labels: str) -> HistogramFamily:
        """Add a figure of durations, seconds; see ``counter``."""
        family = HistogramFamily(self._figure("histogram", name, meaning, labels), self._service, _LATENCY_BUCKETS)
        self.registry.register(family)
        return family

    def _figure(
        self, kind: Literal["counter", "gauge", "histogram"], name: str, meaning: str, labels: tuple[str, ...]
    ) -> Figure:
        figure = Figure(kind, name, meaning, ("service", *labels))
        self.figures.append(figure)
        return figure


def _lines_by_level() -> Mapping[Labels, float]:
    return {(level,): lines for level, lines in lines_written().items()}
