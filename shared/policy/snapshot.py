"""A copy of the policy on disk, for a start without Redis, and for a Redis that lost its data."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from shared.errors import DecodeError
from shared.policy.document import PolicyDocument, read_document

log = structlog.get_logger(__name__)


class PolicySnapshot:
    """One file that is replaced as a whole, so that a reader never sees half of it.

    The services of one machine keep theirs in one folder; a service that was down when the policy changed finds the
    newest version there.
    """

    def __init__(self, path: Path) -> None:
        """Prepare, without touching the disk.

        Args:
            path: File of this process; the other ``.json`` files in its folder are those of others.
        """
        self._path = path

    def save(self, document: PolicyDocument) -> None:
        """Write ``document``; a disk that refuses is reported and costs nothing else."""
        draft = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                file.write(document.model_dump_json(indent=2))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            log.warning("policy_snapshot_failed", path=str(self._path), error=str(error))

    def load(self) -> PolicyDocument | None:
        """Return the newest version in the folder; None when there is none that can be used."""
        copies = [_read(path) for path in sorted(self._path.parent.glob("*.json"))]
        return max((copy for copy in copies if copy is not None), key=lambda copy: copy.version, default=None)


def _read(path: Path) -> PolicyDocument | None:
    try:
        return read_document(path.read_bytes())
    except (OSError, DecodeError) as error:
        log.error("policy_snapshot_unusable", path=str(path), error=str(error))
        return None
