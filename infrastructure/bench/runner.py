"""Runs benchmarks one after the other on a stage of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infrastructure.bench.contest import Benchmark, Tell, hold
from infrastructure.bench.figures import Row
from infrastructure.bench.stage import open_stage
from shared.clock import Clock


async def run_benchmarks(
    benchmarks: Sequence[Benchmark], *, rounds: int, seconds: float, clock: Clock, tell: Tell
) -> list[Row]:
    """Return a row per benchmark.

    Args:
        benchmarks: What to measure.
        rounds: How often each contestant plays.
        seconds: How long each of them plays in a round, about.
        clock: Wall clock.
        tell: Told what is going on.

    Raises:
        ConfigurationError: There is no Redis to be had on this machine.
    """
    async with open_stage(clock) as stage:
        return [await hold(benchmark, stage, rounds=rounds, seconds=seconds, tell=tell) for benchmark in benchmarks]


async def profile_benchmark(benchmark: Benchmark, *, folder: Path, seconds: float, clock: Clock) -> None:
    """Let our side of ``benchmark`` play once under cProfile; each process writes a table into ``folder``.

    Raises:
        QuantumTraderError: It could not play.
    """
    async with open_stage(clock, profile_to=folder / benchmark.name) as stage:
        await benchmark.ours.perform(stage, seconds)
