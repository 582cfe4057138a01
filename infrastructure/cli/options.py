"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infrastructure.supervisor.environment import read_environment

DEFAULT_SYMBOLS = "BTC/USDT:USDT,ETH/USDT:USDT,SOL/USDT:USDT"
DEFAULT_TIMEFRAME = "1h"

StateDirOption = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Folder of everything that is kept; else QT_STATE_DIR, else var."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]


def state_dir_from(option: Path | None) -> Path:
    """Return the folder that the option names, else the environment, else ``var``."""
    return option or Path(read_environment().get("QT_STATE_DIR", "var"))
