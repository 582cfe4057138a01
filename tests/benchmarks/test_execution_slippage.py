"""The comparison of worked orders with single market orders on the recorded book, in small."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from infrastructure.bench.execution_slippage import DATA, NAME, RECORDING, measure, rows_of, table_of
from services.exec_risk_service.domain.executions import Strategy
from shared.errors import ConfigurationError
from tests.support.command_line import run_command

needs_recording = pytest.mark.skipif(
    not (DATA / RECORDING).is_file(), reason=f"the recorded book {DATA / RECORDING} is not on this machine"
)


@needs_recording
def test_a_large_order_costs_less_when_it_is_worked() -> None:
    summaries = measure(sizes=(Decimal(60),), every=timedelta(seconds=300))
    found = {each.strategy: each for each in summaries}
    assert list(found) == [Strategy.MARKET, Strategy.LIMIT, Strategy.TWAP, Strategy.VWAP, Strategy.SMART]
    assert all(each.orders == 2 for each in summaries)
    assert 0 < found[Strategy.TWAP].arrival_bps < found[Strategy.MARKET].arrival_bps
    assert found[Strategy.LIMIT].maker_share > 0.5
    assert found[Strategy.TWAP].children > 6
    assert found[Strategy.SMART].arrival_bps < found[Strategy.MARKET].arrival_bps
    rows = [row.as_json() for row in rows_of(summaries)]
    assert [row["name"] for row in rows] == [f"{NAME}_{name}_60" for name in ("limit", "twap", "vwap", "smart")]
    assert {row["rival"] for row in rows} == {"one market order"}
    assert table_of(summaries).row_count == 5


def test_without_the_recording_one_line_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not on this machine"):
        measure(tmp_path)


@needs_recording
@pytest.mark.long
async def test_bench_prints_the_comparison(tmp_path: Path) -> None:
    finished = await run_command("bench", "--only", NAME, "--json", cwd=tmp_path)
    assert finished.exit_code == 0, finished.stderr
    rows = json.loads(finished.stdout)
    assert len(rows) == 12
    assert all(list(row)[:4] == ["name", "value", "unit", "target"] for row in rows)
