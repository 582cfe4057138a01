"""Models on disk: written at once, refused when damaged, foreign, or from the future."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.ai_service.domain.features import FEATURE_SCHEMA
from services.ai_service.models.lightgbm_forecaster import load_lightgbm
from services.ai_service.models.manifest import MANIFEST_FILE, ModelManifest, read_manifest
from services.ai_service.models.model_store import FileModelStore
from services.ai_service.ports import Forecaster
from shared.errors import ArtifactError
from tests.support.ai_market import trained

SYMBOLS = ["BTCUSDT", "ETHUSDT"]
END = trained()[0].data_end


def stored(folder: Path, **changes: Any) -> Path:
    manifest, text = trained()
    return FileModelStore(folder).save(manifest.model_copy(update=changes), text)


def found(folder: Path, *, timeframe: str = "1m", symbols: list[str] = SYMBOLS, late: int = 0) -> list[Forecaster]:
    return FileModelStore(folder).candidates(timeframe, symbols, END + timedelta(seconds=late))


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    folder = stored(tmp_path)

    assert folder == tmp_path / "models" / "lightgbm-1m" / trained()[0].version
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.txt"]
    assert [model.card for model in found(tmp_path)] == [trained()[0].card]


def test_the_model_with_the_newest_data_comes_first(tmp_path: Path) -> None:
    data = {
        symbol: part.model_copy(update={"end": END - timedelta(hours=1)}) for symbol, part in trained()[0].data.items()
    }
    stored(tmp_path, data=data, version="older")
    stored(tmp_path)

    assert [model.card.version for model in found(tmp_path)] == [trained()[0].version, "older"]


def test_a_model_that_has_seen_the_future_is_left_out(tmp_path: Path) -> None:
    stored(tmp_path)

    assert found(tmp_path, late=-1) == []


def test_a_model_that_does_not_know_a_symbol_is_left_out(tmp_path: Path) -> None:
    stored(tmp_path)

    assert found(tmp_path, symbols=["BTCUSDT", "SOLUSDT"]) == []
    assert len(found(tmp_path, symbols=["ETHUSDT"])) == 1


def test_a_model_of_another_timeframe_is_left_out(tmp_path: Path) -> None:
    stored(tmp_path)
    stored(tmp_path, timeframe="1h", version="mislabelled")

    assert found(tmp_path, timeframe="1h") == []
    assert len(found(tmp_path)) == 1


def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path) / "model.txt"
    path.write_bytes(path.read_bytes().replace(b"leaf_value=", b"leaf_value=9", 1))

    assert found(tmp_path) == []
    with pytest.raises(ArtifactError, match="it was changed or damaged"):
        load_lightgbm(path.parent, read_manifest(path.parent))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"feature_schema": "0-old"}, f"was made for feature schema 0-old, this code computes {FEATURE_SCHEMA}"),
        ({"feature_names": ["a"]}, "was made for feature schema"),
        ({"sha256": "short"}, "sha256"),
        ({"scores": {"centre": 0, "slope": 1, "strengths": [1, 0]}}, "ascending"),
        ({"metrics": {"auc": float("nan")}}, "metrics.auc"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    folder = stored(tmp_path)
    edit_manifest(folder, **changes)

    with pytest.raises(ArtifactError) as refusal:
        read_manifest(folder)

    assert reason in str(refusal.value)
    assert "train a new model" in str(refusal.value)
    assert found(tmp_path) == []


def test_files_that_are_missing_or_no_model_are_refused(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    manifest = read_manifest(folder)
    (folder / "model.txt").unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_lightgbm(folder, manifest)
    (folder / MANIFEST_FILE).unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_manifest(folder)
    assert found(tmp_path) == []


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    edit_manifest(stored(tmp_path), family="crystal-ball")

    assert found(tmp_path) == []


def test_half_written_models_are_not_seen(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    folder.rename(folder.parent / ".draft-abc")

    assert found(tmp_path) == []


def test_saving_again_keeps_a_good_model_and_mends_a_damaged_one(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    before = (folder / MANIFEST_FILE).stat().st_mtime_ns
    stored(tmp_path)
    assert (folder / MANIFEST_FILE).stat().st_mtime_ns == before

    (folder / "model.txt").write_bytes(b"damaged")
    stored(tmp_path)

    assert len(found(tmp_path)) == 1


def test_the_manifest_is_readable_text(tmp_path: Path) -> None:
    text = (stored(tmp_path) / MANIFEST_FILE).read_text()

    assert ModelManifest.model_validate_json(text) == trained()[0]
    assert json.loads(text)["stage"] == "bootstrap"
