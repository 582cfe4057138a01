"""``quantum-trader bench``: how fast this machine does what matters, each figure beside its rival from the same run."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from infrastructure.cli import exit_codes
from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from
from infrastructure.cli.output import stdout_console, write_json, write_line

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from infrastructure.bench.contest import Benchmark
    from infrastructure.bench.execution_slippage import Summary
    from infrastructure.bench.figures import Row

T = TypeVar("T")


def bench(
    *,
    only: Annotated[
        str | None, typer.Option(metavar="NAME,..", help="Only these; without it all, which takes some minutes.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="Time of each contestant in each round.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; contestants take turns, the median counts.")] = 5,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Profile our side of one benchmark, a table per process.")
    ] = None,
    state_dir: StateDirOption = None,
    json: JsonOption = False,
) -> None:
    """Measure messaging and the way from a candle to an order, beside rivals; exit code 1 when a row has no value.

    ``execution_slippage`` is another kind of row: what working a large order costs against sending it at once, played
    on a recorded book. A target that is missed is told in the result; it is no error.
    """
    from infrastructure.bench.benchmarks import BENCHMARKS, selected
    from shared.errors import ConfigurationError

    others, has_slippage = _without_slippage(only)
    try:
        chosen = [] if others == "" else selected(others if profile is None else profile)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None
    if profile is not None:
        _profile(BENCHMARKS[chosen[0].name], state_dir_from(state_dir) / "bench", seconds)
        return
    rows = _measure(chosen, rounds=rounds, seconds=seconds) if chosen else []
    summaries = _measure_slippage(is_asked_for=only is not None) if has_slippage else []
    if json:
        from infrastructure.bench.execution_slippage import rows_of

        write_json([row.as_json() for row in (*rows, *rows_of(summaries))])
    else:
        _show(rows, summaries)
    failed = any(row.value is None for row in rows)
    raise typer.Exit(exit_codes.ERROR if failed else exit_codes.OK)


def _without_slippage(only: str | None) -> tuple[str | None, bool]:
    """Return ``only`` without the name of the slippage comparison, and whether it is wanted."""
    from infrastructure.bench.execution_slippage import NAME

    if only is None:
        return None, True
    names = [name.strip() for name in only.split(",")]
    if NAME not in names:
        return only, False
    return ",".join(name for name in names if name and name != NAME), True


def _measure_slippage(*, is_asked_for: bool) -> list[Summary]:
    """Return the comparison; nothing, and a line that says why, where the recording is not at hand."""
    from infrastructure.bench.execution_slippage import measure
    from infrastructure.cli.progress import progress_for
    from shared.errors import ConfigurationError

    progress = progress_for(sys.stderr)
    try:
        return measure(tell=progress.say)
    except ConfigurationError as error:
        if is_asked_for:
            raise
        progress.say(str(error))
        return []
    finally:
        progress.close()


def _measure(chosen: list[Benchmark], *, rounds: int, seconds: float) -> list[Row]:
    from infrastructure.bench.runner import run_benchmarks
    from infrastructure.cli.progress import progress_for
    from shared.clock import SystemClock

    progress = progress_for(sys.stderr)
    try:
        return asyncio.run(
            _stoppable(run_benchmarks(chosen, rounds=rounds, seconds=seconds, clock=SystemClock(), tell=progress.say))
        )
    finally:
        progress.close()


def _profile(benchmark: Benchmark, folder: Path, seconds: float) -> None:
    from infrastructure.bench.runner import profile_benchmark
    from shared.clock import SystemClock

    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_stoppable(profile_benchmark(benchmark, folder=folder, seconds=seconds, clock=SystemClock())))
    for path in sorted(folder.glob(f"{benchmark.name}.*.txt")):
        write_line(str(path))


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    """Clean up after SIGTERM as after Ctrl-C."""
    task = asyncio.create_task(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise typer.Abort from None


def _show(rows: list[Row], summaries: list[Summary]) -> None:
    from infrastructure.bench import execution_slippage
    from infrastructure.bench.report import notes_of, table_of

    if rows:
        stdout_console().print(table_of(rows))
    for note in notes_of(rows):
        write_line(note)
    if summaries:
        stdout_console().print(execution_slippage.table_of(summaries))
