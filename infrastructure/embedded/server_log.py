"""The log file of an embedded server, and what it says when the server does not start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

#: Above this size the file is set aside when the server starts; one older file is kept.
_LARGEST_BYTES = 10_000_000
_TELLING = ("FATAL", "PANIC", "ERROR", "# ")


class ServerLog:
    """Appends to one file and remembers where the present start began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._began = 0

    def open(self) -> BinaryIO:
        """Return the file, for the server to write to."""
        if self.path.exists() and self.path.stat().st_size > _LARGEST_BYTES:
            self.path.replace(self.path.with_suffix(".log.1"))
        self._began = self.path.stat().st_size if self.path.exists() else 0
        return os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def since_start(self) -> str:
        """Return what was written since ``open``."""
        with self.path.open("rb") as file:
            file.seek(self._began)
            return file.read().decode("utf-8", "replace")

    def reason(self) -> str:
        """Return the one line that most likely tells why the server ended."""
        lines = [line.strip() for line in self.since_start().splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in _TELLING)]
        return (telling or lines or ["it wrote nothing"])[-1]
