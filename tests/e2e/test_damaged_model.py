"""Row 26 of the fault table: a model file that is not what its manifest says is not used, and trading goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.live_run import run_to_the_end, with_models_of
from tests.support.recorded_run import Recorded

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("whole-runs"), pytest.mark.long]


async def test_row_26_a_damaged_model_is_refused_and_another_is_trained(run: Recorded, tmp_path: Path) -> None:
    state_dir = with_models_of(run.state_dir, tmp_path)
    (damaged,) = state_dir.glob("models/*/*/model.txt")
    text = damaged.read_bytes()
    damaged.write_bytes(text.replace(b"1", b"2", 1))

    finished = await run_to_the_end(state_dir, candles=run.candles, seconds=10.0)

    assert finished.exit_code == 0, finished.stderr
    report = finished.json()
    assert report["invariants"] == dict.fromkeys(report["invariants"], True)
    assert report["predictions"] > 0, "by a model whose file is what its manifest says"
    (log,) = state_dir.glob("runs/*/logs/ai-service.log")
    said = log.read_text()
    assert "sha256" in said
    assert damaged.parent.name in said
