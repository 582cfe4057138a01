"""A copy of the policy on disk, for a start without Redis."""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from shared.errors import DecodeError
from shared.policy.document import PolicyDocument, read_document

log = structlog.get_logger(__name__)


class PolicySnapshot:
    """One file that is replaced as a whole, so that a reader never sees half of it."""

    def __init__(self, path: Path) -> None:
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
        """Return the saved document; None when there is none that can be used."""
        try:
            return read_document(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, DecodeError) as error:
            log.error("policy_snapshot_unusable", path=str(self._path), error=str(error))
            return None
