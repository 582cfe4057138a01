"""Models on disk: ``models/<family>-<timeframe>/<version>/`` with the model file and its manifest, written at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import structlog

from services.ai_service.models.lightgbm_forecaster import FAMILY as LIGHTGBM
from services.ai_service.models.lightgbm_forecaster import load_lightgbm
from services.ai_service.models.manifest import MANIFEST_FILE, ModelManifest, read_manifest
from services.ai_service.ports import Forecaster
from shared.errors import ArtifactError

log = structlog.get_logger(__name__)

#: How each family is read back.
LOADERS: Mapping[str, Callable[[Path, ModelManifest], Forecaster]] = {LIGHTGBM: load_lightgbm}


class FileModelStore:
    """Models under one folder."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir / "models"

    def save(self, manifest: ModelManifest, model: bytes) -> Path:
        """Write a model and return its folder; a reader sees all of it or nothing.

        A version that exists already was made from the same data and is left as it is, unless it is damaged.
        """
        family = self._root / manifest.model_id
        family.mkdir(parents=True, exist_ok=True)
        target = family / manifest.version
        if target.exists():
            if self._is_usable(target):
                return target
            shutil.rmtree(target)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=family))
        try:
            _write_durably(draft / manifest.model_file, model)
            _write_durably(draft / MANIFEST_FILE, manifest.model_dump_json(indent=2).encode())
            draft.chmod(0o755)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def candidates(self, timeframe: str, symbols: Sequence[str], now: datetime) -> list[Forecaster]:
        """Return the usable models, newest data first; see ``ModelStore.candidates``."""
        usable = []
        for family in LOADERS:
            for folder in sorted((self._root / f"{family}-{timeframe}").glob("[!.]*")):
                try:
                    usable.append(self._load(folder, timeframe, symbols, now))
                except ArtifactError as error:
                    log.warning("model_left_out", model=f"{folder.parent.name}/{folder.name}", reason=str(error))
        return sorted(usable, key=lambda model: (model.card.data_end, model.card.version), reverse=True)

    def _load(self, folder: Path, timeframe: str, symbols: Sequence[str], now: datetime) -> Forecaster:
        manifest = read_manifest(folder)
        if manifest.timeframe != timeframe:
            raise ArtifactError(f"it reads {manifest.timeframe} candles, {timeframe} is configured")
        if strangers := sorted(set(symbols) - set(manifest.data)):
            raise ArtifactError(f"it was not trained on {', '.join(strangers)}")
        if manifest.data_end > now:
            raise ArtifactError(
                f"it has seen candles up to {manifest.data_end.isoformat()}, after market time {now.isoformat()}"
            )
        return _read(folder, manifest)

    def _is_usable(self, folder: Path) -> bool:
        try:
            _read(folder, read_manifest(folder))
        except ArtifactError:
            return False
        return True


def _read(folder: Path, manifest: ModelManifest) -> Forecaster:
    loader = LOADERS.get(manifest.family)
    if loader is None:
        raise ArtifactError(f"{folder} holds a model of the unknown family {manifest.family!r}; known: {list(LOADERS)}")
    return loader(folder, manifest)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
