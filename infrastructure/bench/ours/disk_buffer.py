"""The disk buffer in benchmarks: one event after the other, each on the disk before the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.samples import EVENT_TYPE, SignalSamples
from infrastructure.bench.statistics import percentile
from shared.clock import SystemClock
from shared.disk_buffer.buffer import DiskBuffer
from shared.disk_buffer.entries import BufferedEntry
from shared.events.codec import encode
from shared.events.envelope import Event, EventMetadata
from shared.events.streams import event_stream
from shared.ids import RandomIds


async def append(cue: Cue) -> dict[str, Any]:
    """Append entries and measure each call."""
    buffer = DiskBuffer(Path(cue.options["folder"]) / "buffer.db", clock=SystemClock(), service="ai-service")
    await buffer.start()
    entries = buffered_entries()
    await cue.started()
    times: list[float] = []
    began = seconds_now()
    while seconds_now() < began + cue.options["seconds"]:
        entry = next(entries)
        start = seconds_now()
        await buffer.append([entry])
        times.append(seconds_now() - start)
    await buffer.stop()
    return duration_figures(times)


def buffered_entries() -> Iterator[BufferedEntry]:
    """Yield full events as the publisher hands them over."""
    clock, ids = SystemClock(), RandomIds()
    samples = SignalSamples(clock)
    number = 0
    while True:
        number += 1
        event_id = ids.new()
        metadata = EventMetadata(event_id, EVENT_TYPE, ids.new(), None, clock.now(), "ai-service", number)
        encoded = encode(Event(metadata, samples.payload()))
        fields = {b"metadata": encoded["metadata"], b"payload": encoded["payload"], b"producer": b"ai-service:bench"}
        yield BufferedEntry(event_stream(EVENT_TYPE), fields, event_id, priority=3)


def duration_figures(times: list[float]) -> dict[str, Any]:
    """Return the percentiles of ``times``, in ms."""
    return {
        "count": len(times),
        "p50_ms": percentile(times, 0.50) * 1000,
        "p99_ms": percentile(times, 0.99) * 1000,
    }
