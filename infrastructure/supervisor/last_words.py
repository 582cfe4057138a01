"""The last line of a log, read as a sentence for people."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

_TAIL_BYTES = 16_384
#: Further back an error is an old one that the program got over.
_TAIL_LINES = 20


def last_words(log: Path) -> str:
    """Return what a program said last: the error of its last JSON log line that has one, else its last line."""
    lines = [line for line in _tail(log).splitlines() if line.strip()][-_TAIL_LINES:]
    found = next((said for line in reversed(lines) if (said := _error_in(line))), lines[-1].strip() if lines else "")
    return found.removeprefix("error: ")


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _error_in(line: str) -> str:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return ""
    error = entry.get("error") if isinstance(entry, dict) else None
    return str(error) if error else ""
