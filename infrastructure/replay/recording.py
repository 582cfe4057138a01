"""Events as JSON lines, in the shape of ``quantum-trader events --json``: written by a replay, read back by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from infrastructure.cli.causation import as_json
from services.analytics_os_service.domain.archived_event import ArchivedEvent, archived, restored
from shared.errors import ConfigurationError, DecodeError
from shared.events.envelope import Event, EventMetadata

_METADATA = TypeAdapter(EventMetadata)


def event_line(event: Event[Any]) -> bytes:
    """Return ``event`` as one line of JSON without the line end."""
    return orjson.dumps(as_json(archived(event)), option=orjson.OPT_UTC_Z)


def write_recording(path: Path, events: Iterable[Event[Any]]) -> None:
    """Write one line per event.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    try:
        with path.open("wb") as file:
            for event in events:
                file.write(event_line(event) + b"\n")
    except OSError as error:
        raise ConfigurationError(f"recording {path} cannot be written: {error.strerror}") from error


def read_recording(path: Path) -> list[Event[Any]]:
    """Return the events in ``path``.

    Raises:
        ConfigurationError: The file cannot be read.
        DecodeError: A line is no event; names the line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"recording {path} cannot be read: {error.strerror}") from error
    return [_event(line, f"{path} line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def digest(events: Iterable[Event[Any]]) -> str:
    """Return one hash over every byte of every event in order: two replays are equal when these are."""
    sha = hashlib.sha256()
    for event in events:
        sha.update(event_line(event) + b"\n")
    return sha.hexdigest()


def _event(line: bytes, place: str) -> Event[Any]:
    try:
        fields = orjson.loads(line)
        metadata = _METADATA.validate_python({name: fields[name] for name in EventMetadata.__dataclass_fields__})
        return restored(ArchivedEvent(metadata, fields.get("symbol"), fields["payload"]))
    except (orjson.JSONDecodeError, ValidationError, KeyError, TypeError, DecodeError) as error:
        raise DecodeError(f"{place} is no event: {' '.join(str(error).split())[:200]}", raw=line) from None
