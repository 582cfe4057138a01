"""``python -m infrastructure.bench.worker MODULE:FUNCTION``: a contestant's part in a process of its own.

The function takes its ``Cue`` and returns the result; a coroutine function runs on uvloop, as services do.
"""

from __future__ import annotations

import asyncio
import cProfile
import inspect
import io
import pstats
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from infrastructure.bench.cue import Cue, open_cue

#: Rows of a profile that are kept.
_PROFILE_ROWS = 60


def main(part: str) -> None:
    """Carry out ``part`` and tell what it measured; what goes wrong is one line on stderr."""
    try:
        _play(part, open_cue())
    except Exception as error:  # noqa: BLE001 - logging may have been set up, and would write pages of JSON
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(1)


def _play(part: str, cue: Cue) -> None:
    module, _, name = part.partition(":")
    function = getattr(import_module(f"infrastructure.bench.{module}"), name)
    profile = cue.options.get("profile")
    if profile is None:
        cue.tell(_carry_out(function, cue))
        return
    profiler = cProfile.Profile()
    result = profiler.runcall(_carry_out, function, cue)
    cue.tell(result)
    Path(profile).write_text(_table(profiler), encoding="utf-8")


def _carry_out(function: Callable[[Cue], Any], cue: Cue) -> Mapping[str, Any]:
    result: Mapping[str, Any] = (
        run_on_fast_loop(function(cue)) if inspect.iscoroutinefunction(function) else function(cue)
    )
    return result


def run_on_fast_loop(work: Coroutine[Any, Any, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Run ``work`` on uvloop where it is installed; uvicorn chooses the loop of services in the same way."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def _table(profiler: cProfile.Profile) -> str:
    text = io.StringIO()
    statistics = pstats.Stats(profiler, stream=text).strip_dirs()
    for order in ("tottime", "cumulative"):
        statistics.sort_stats(order).print_stats(_PROFILE_ROWS)
    return text.getvalue()


if __name__ == "__main__":
    main(sys.argv[1])
