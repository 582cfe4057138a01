"""The token of the control endpoints: drawn anew for each run, in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

API_TOKEN = "QT_API_TOKEN"  # noqa: S105 - the name of the variable


def api_token_file(run_directory: Path) -> Path:
    """Return the file with the token of a run; it is made at the first call."""
    path = run_directory.absolute() / "api_token"
    if not path.exists():
        draft = path.with_suffix(".tmp")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
        draft.replace(path)
    return path
