"""The latch of the emergency stop: one small file. While it is there, nothing is opened, whoever starts the service.

Touching the file by hand is a stop like any other; deleting it by hand ends nothing, because the journal knows the
stop as well. Only a resume takes both away.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from services.exec_risk_service.ports import LatchedStop
from shared.errors import ConnectionLostError
from shared.ids import derive_id

FILE_NAME = "STOP"
#: A file without a word in it was made by hand.
_BY_HAND = "the latch file was made by hand"
_UNREADABLE = "the latch file cannot be read, so it counts"


def latch_path(state_dir: Path, mode: str, run_id: str) -> Path:
    """Return the file of one account."""
    return state_dir / "emergency-stop" / mode / run_id / FILE_NAME


class FileLatch:
    """``StopLatch`` on a disk: written whole and flushed, folder included, before ``write`` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> LatchedStop | None:
        return await asyncio.to_thread(read_latch, self._path)

    async def write(self, stop: LatchedStop) -> None:
        try:
            await asyncio.to_thread(write_latch, self._path, stop)
        except OSError as error:
            raise ConnectionLostError(f"{self._path} cannot be written: {error.strerror}") from error

    async def clear(self) -> None:
        try:
            await asyncio.to_thread(_remove, self._path)
        except OSError as error:
            raise ConnectionLostError(f"{self._path} cannot be removed: {error.strerror}") from error


class MemoryLatch:
    """``StopLatch`` that is gone with the process: for replay and tests."""

    def __init__(self) -> None:
        self.stop: LatchedStop | None = None

    async def read(self) -> LatchedStop | None:
        return self.stop

    async def write(self, stop: LatchedStop) -> None:
        self.stop = stop

    async def clear(self) -> None:
        self.stop = None


def read_latch(path: Path) -> LatchedStop | None:
    """Return what is latched; None only when there is no file. What cannot be read is latched."""
    try:
        touched = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    except OSError:
        return LatchedStop(derive_id("stop", str(path)), _UNREADABLE, "file", datetime.fromtimestamp(0, UTC))
    made_by_hand = derive_id("stop", str(path), str(touched))
    since = datetime.fromtimestamp(touched / 1e9, UTC)
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            return LatchedStop(made_by_hand, _BY_HAND, "file", since)
        fields = json.loads(text)
        return LatchedStop(
            stop_id=str(fields["stop_id"]),
            reason=str(fields["reason"]),
            requested_by=str(fields["requested_by"]),
            since=datetime.fromisoformat(fields["since"]),
        )
    except FileNotFoundError:
        return None  # a resume took it away between the two looks
    except (OSError, ValueError, TypeError, KeyError):
        return LatchedStop(made_by_hand, _UNREADABLE, "file", since)


def write_latch(path: Path, stop: LatchedStop) -> None:
    """Put the latch on the disk.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(
            {
                "stop_id": stop.stop_id,
                "reason": stop.reason,
                "requested_by": stop.requested_by,
                "since": stop.since.isoformat(),
            },
            file,
        )
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _flush_folder(path.parent)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    if path.parent.exists():
        _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
