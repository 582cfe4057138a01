"""The folder of one run under ``<state dir>/runs``: logs, market clock, embedded Redis; old ones are removed."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from shared.clock import Clock
from shared.errors import ConfigurationError
from shared.ids import IdSource

RUNS_KEPT = 5
#: Only folders that are named like a run are ever removed.
_RUN_NAME = re.compile(r"^\d{8}T\d{6}-[0-9a-f]{8}$")


def new_run_id(clock: Clock, ids: IdSource) -> str:
    """Return a name that sorts by time and does not repeat: ``20250504T123000-6c1f5f0e``."""
    return f"{clock.now():%Y%m%dT%H%M%S}-{ids.new()[:8]}"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run.

    Attributes:
        path: ``<state dir>/runs/<run id>``.
    """

    path: Path

    @property
    def clock_file(self) -> Path:
        return self.path / "market_clock.json"

    @property
    def redis(self) -> Path:
        return self.path / "redis"

    def log(self, program: str) -> Path:
        """Return the log file of one program."""
        return self.path / "logs" / f"{program}.log"


def create_run_directory(state_dir: Path, run_id: str) -> RunDirectory:
    """Make the folder of a new run and remove all but the newest ``RUNS_KEPT``.

    Raises:
        ConfigurationError: The state folder cannot be written.
    """
    directory = RunDirectory(state_dir / "runs" / run_id)
    try:
        directory.log("x").parent.mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError(f"the state folder {state_dir} cannot be written: {error.strerror}") from error
    for old in _runs(directory.path.parent)[:-RUNS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return directory


def _runs(folder: Path) -> list[Path]:
    """Return the runs in ``folder``, oldest first."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and _RUN_NAME.match(path.name))
