"""A policy read in benchmarks: from the cached copy as services do it, and from Redis each time as the alternative."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from infrastructure.bench.cue import Cue
from infrastructure.bench.statistics import percentile
from shared.clock import SystemClock
from shared.policy.redis_store import RedisPolicyStore
from shared.redis_connection import RedisConnection

#: Reads between two looks at the clock.
_AT_ONCE = 1000


async def read_cached(cue: Cue) -> dict[str, Any]:
    """Read the policy in force over and over."""
    connection = RedisConnection(cue.options["redis_url"], clock=SystemClock())
    await connection.start()
    store = RedisPolicyStore(connection, clock=SystemClock())
    await store.start()
    await cue.started()
    times = timed(store.current, cue.options["seconds"], at_once=_AT_ONCE)
    await store.stop()
    await connection.stop()
    return {"count": len(times) * _AT_ONCE, "read_us": percentile(times, 0.50) * 1e6}


async def read_uncached(cue: Cue) -> dict[str, Any]:
    """Ask Redis for the policy at every read."""
    connection = RedisConnection(cue.options["redis_url"], clock=SystemClock())
    await connection.start()
    store = RedisPolicyStore(connection, clock=SystemClock())
    await store.start()
    await cue.started()
    times, began = [], perf_counter()
    while (start := perf_counter()) < began + cue.options["seconds"]:
        await store.refresh()
        times.append(perf_counter() - start)
    await store.stop()
    await connection.stop()
    return {"count": len(times), "read_us": percentile(times, 0.50) * 1e6}


def timed(function: Callable[[], object], seconds: float, *, at_once: int) -> list[float]:
    """Return the seconds of one call, block by block of ``at_once`` calls, until ``seconds`` are over."""
    times = []
    began = perf_counter()
    while (start := perf_counter()) < began + seconds:
        for _ in range(at_once):
            function()
        times.append((perf_counter() - start) / at_once)
    return times
