"""The variables that a run is configured by: the environment, then ``.env``; and what each service is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from shared.errors import ConfigurationError


def read_environment(env_file: Path = Path(".env")) -> dict[str, str]:
    """Return the process environment over the values of ``.env``; empty values count as not set.

    Raises:
        ConfigurationError: ``.env`` cannot be read.
    """
    try:
        from_file = dotenv_values(env_file) if env_file.is_file() else {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{env_file} cannot be read: {error}") from error
    merged = {**from_file, **os.environ}
    return {name: value for name, value in merged.items() if value}


def configured(name: str, environment: Mapping[str, str]) -> str | None:
    """Return the value of ``name``, or the content of the file that ``name_FILE`` names; None when neither is set.

    Raises:
        ConfigurationError: Both are set, or the file cannot be read.
    """
    value, path = environment.get(name), environment.get(f"{name}_FILE")
    if path is None:
        return value
    if value is not None:
        raise ConfigurationError(f"{name} and {name}_FILE are both set; keep one of them")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}_FILE names {path!r}, which cannot be read: {error}") from error
