"""The two channels of the command line: results on stdout, everything said to people on stderr."""

from __future__ import annotations

import sys
from typing import Any

import orjson


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
