"""The table of all benchmarks: names and targets from the architecture, and who is compared with whom."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from infrastructure.bench.contest import Benchmark, Contestant
from infrastructure.bench.figures import Target
from infrastructure.bench.plays import Duet, Flow, Solo
from infrastructure.bench.samples import EVENT_TYPE
from infrastructure.bench.whole_run import WholeRun
from shared.errors import ConfigurationError
from shared.events.streams import event_stream

#: Publishers of ours at work at once, each waiting for its event; enough to fill two batches of the publisher.
_IN_FLIGHT = {"in_flight": 1000}
#: Events that rivals put into one pipeline or read at once; larger ones gained nothing.
_BATCH = {"batch": 500}
#: Both sides publish payloads that were built, and thereby validated, as the same model.
_VALIDATED = {**_BATCH, "validated": True}
_NOT_VALIDATED = {**_BATCH, "validated": False}
_STREAM = event_stream(EVENT_TYPE)

_HAND_PACKED = "hand-packed pipeline"
_HAND_PACKED_XADD = "hand-packed XADD"
_FASTSTREAM = "FastStream"
_FASTSTREAM_STREAM = "bench:faststream"
_GRPC = "grpc.aio"
_BARE_REQUEST = "a bare request to the exchange"
_OFFERED_PER_S = 100_000
_PRODUCERS = 4


def _held_by(details: Mapping[str, Any]) -> str:
    seconds: Mapping[str, float] = details["cpu_seconds"]
    total = sum(seconds.values())
    shares = ", ".join(f"{name} {used / total:.0%}" for name, used in seconds.items())
    return (
        f"{_OFFERED_PER_S:,} events/s were offered by {_PRODUCERS} producers and {details['published_per_s']:,}/s "
        f"accepted; the machine was {details['machine_busy']:.0%} busy, others used {details['foreign_cpu']:.0%}; "
        f"of our processor time: {shares}"
    )


_BENCHMARKS = (
    Benchmark(
        "bus_e2e_events_per_s",
        "publish, consume, validate, acknowledge: one producer, one consumer",
        "events/s",
        Flow("ours.bus:produce", "ours.bus:consume", _IN_FLIGHT, stream=_STREAM),
        (
            Contestant(
                _HAND_PACKED,
                Flow("rivals.hand_packed:produce", "rivals.hand_packed:consume", _VALIDATED, stream=_STREAM),
            ),
            Contestant(
                "hand-packed, plain dicts",
                Flow("rivals.hand_packed:produce", "rivals.hand_packed:consume", _NOT_VALIDATED, stream=_STREAM),
            ),
            Contestant(
                _FASTSTREAM,
                Flow(
                    "rivals.faststream_bus:produce",
                    "rivals.faststream_bus:consume",
                    {**_BATCH, "in_flight": 64},
                    stream=_FASTSTREAM_STREAM,
                ),
                library="faststream",
            ),
            Contestant(
                "FastStream, pipelines",
                Flow(
                    "rivals.faststream_bus:produce_pipelines",
                    "rivals.faststream_bus:consume",
                    _BATCH,
                    stream=_FASTSTREAM_STREAM,
                ),
                library="faststream",
            ),
            Contestant(
                "NATS core",
                Flow("rivals.nats_bus:produce_core", "rivals.nats_bus:consume_core", _BATCH, on_nats=True),
                library="nats",
                needs_nats=True,
            ),
            Contestant(
                "NATS JetStream",
                Flow("rivals.nats_bus:produce_stream", "rivals.nats_bus:consume_stream", _BATCH, on_nats=True),
                library="nats",
                needs_nats=True,
            ),
        ),
        (Target("at least", 0.6, _HAND_PACKED), Target("at least", 10, _FASTSTREAM)),
    ),
    Benchmark(
        "bus_publish_events_per_s",
        "publish, each event acknowledged by Redis",
        "events/s",
        Flow("ours.bus:produce", options=_IN_FLIGHT),
        (
            Contestant(_HAND_PACKED_XADD, Flow("rivals.hand_packed:produce", options=_VALIDATED)),
            Contestant("hand-packed, plain dicts", Flow("rivals.hand_packed:produce", options=_NOT_VALIDATED)),
        ),
        (Target("at least", 0.7, _HAND_PACKED_XADD),),
    ),
    Benchmark(
        "bus_100k_load",
        f"{_OFFERED_PER_S:,} events/s offered by {_PRODUCERS} producers, one consumer",
        "events/s",
        Flow(
            "ours.bus:produce",
            "ours.bus:consume",
            {"in_flight": 500, "rate": _OFFERED_PER_S / _PRODUCERS},
            producers=_PRODUCERS,
            stream=_STREAM,
        ),
        (
            Contestant(
                _HAND_PACKED,
                Flow(
                    "rivals.hand_packed:produce",
                    "rivals.hand_packed:consume",
                    _VALIDATED,
                    producers=_PRODUCERS,
                    stream=_STREAM,
                ),
            ),
        ),
        (Target("at least", _OFFERED_PER_S),),
        _held_by,
    ),
    Benchmark(
        "publish_p99_ms",
        "latency of publish at 10,000 events/s",
        "ms",
        Solo("ours.bus:publish_on_schedule", "p99_ms", {"rate": 10_000}),
        (Contestant(_HAND_PACKED_XADD, Solo("rivals.hand_packed:publish_on_schedule", "p99_ms", {"rate": 10_000})),),
        (Target("at most", 5),),
    ),
    Benchmark(
        "disk_buffer_p99_ms",
        "an event is on the disk (SQLite, synchronous=FULL)",
        "ms",
        Solo("ours.disk_buffer:append", "p99_ms"),
        (Contestant("write and fdatasync", Solo("rivals.bare_file:append", "p99_ms")),),
        (Target("at most", 1),),
    ),
    Benchmark(
        "rpc_p50_us",
        "RPC round trip, one call at a time",
        "us",
        Duet("ours.rpc:serve", "ours.rpc:call", "p50_us", {"in_flight": 1}),
        (
            Contestant(
                _GRPC,
                Duet("rivals.grpc_rpc:serve", "rivals.grpc_rpc:call", "p50_us", {"in_flight": 1}),
                library="grpc",
            ),
            Contestant(
                "two raw stream hops",
                Duet("rivals.stream_hops:serve", "rivals.stream_hops:call", "p50_us", {"in_flight": 1}),
            ),
        ),
        (Target("at most", 1.3, _GRPC),),
    ),
    Benchmark(
        "rpc_calls_per_s",
        "RPC, 64 calls in flight",
        "calls/s",
        Duet("ours.rpc:serve", "ours.rpc:call", "calls_per_s", {"in_flight": 64}),
        (
            Contestant(
                _GRPC,
                Duet("rivals.grpc_rpc:serve", "rivals.grpc_rpc:call", "calls_per_s", {"in_flight": 64}),
                library="grpc",
            ),
        ),
        (Target("at least", 2, _GRPC),),
    ),
    Benchmark(
        "policy_cached_read_us",
        "read the policy in force",
        "us",
        Solo("ours.policy:read_cached", "read_us"),
        (Contestant("asking Redis each time", Solo("ours.policy:read_uncached", "read_us")),),
        (Target("at most", 10),),
    ),
    Benchmark(
        "risk_decision_us",
        "risk decision, pure: ten positions, 200 candles each",
        "us",
        Solo("ours.risk:decide_all", "decision_us"),
        (),
        (Target("at most", 50),),
    ),
    Benchmark(
        "log_lines_per_s",
        "log lines, JSON with trace id, secrets masked",
        "lines/s",
        Solo("ours.logs:write_ours", "lines_per_s"),
        (Contestant("structlog alone", Solo("ours.logs:write_bare", "lines_per_s")),),
        (Target("at least", 100_000),),
    ),
    Benchmark(
        "candle_to_order_p50_ms",
        "a candle has closed, its order is accepted by the exchange: the median of a whole run",
        "ms",
        WholeRun("candle_to_order_p50_ms"),
        (Contestant(_BARE_REQUEST, WholeRun("ping_ms")),),
        (Target("at most", 15),),
    ),
    Benchmark(
        "candle_to_order_p99_ms",
        "the same, the slowest of a hundred",
        "ms",
        WholeRun("candle_to_order_p99_ms"),
        (Contestant(_BARE_REQUEST, WholeRun("ping_ms")),),
        (Target("at most", 50),),
    ),
    Benchmark(
        "unprotected_p99_ms",
        "a position's first fill, its stop rests on the exchange",
        "ms",
        WholeRun("unprotected_p99_ms"),
        (Contestant(_BARE_REQUEST, WholeRun("ping_ms")),),
        (Target("at most", 250),),
    ),
    Benchmark(
        "kill_to_trading_s",
        "exec-risk is killed with SIGKILL, restarted by the supervisor, reconciled, and answers a new signal",
        "s",
        WholeRun("kill_to_trading_s"),
        (),
        (Target("at most", 10),),
    ),
)

#: Every benchmark by its name, in the order in which they are shown.
BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType({benchmark.name: benchmark for benchmark in _BENCHMARKS})


def selected(only: str | None) -> list[Benchmark]:
    """Return the benchmarks that ``only`` names, separated by commas; all of them when it is None.

    Raises:
        ConfigurationError: A name is unknown, or there is none.
    """
    if only is None:
        return list(BENCHMARKS.values())
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or not names:
        raise ConfigurationError(
            f"no benchmark is called {', '.join(unknown) or repr(only)}; there are: {', '.join(BENCHMARKS)}"
        )
    return [BENCHMARKS[name] for name in dict.fromkeys(names)]
