"""The two channels of the command line: results on stdout, everything said to people on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:  # Rich is imported only by commands that draw
    from rich.console import Console

#: Where stdout is no terminal nothing needs to be folded.
_WIDE = 200


def write_json(value: Any) -> None:
    """Write one indented JSON object to stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z, default=str).decode() + "\n")
    sys.stdout.flush()


def write_json_line(value: Any) -> None:
    """Write one JSON object on one line of stdout."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_UTC_Z, default=str).decode() + "\n")
    sys.stdout.flush()


def write_line(text: str) -> None:
    """Write one line to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_error(text: str) -> None:
    """Write one line to stderr, whatever ``text`` holds."""
    sys.stderr.write(f"quantum-trader: {' '.join(text.split())}\n")
    sys.stderr.flush()


def stdout_console() -> Console:
    """Return a Rich console for results: as wide as the terminal, wide enough for every table elsewhere."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDE)
