"""The paper exchange as a process: one clear line when it cannot start, market time from a clock file, a clean end."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.clock import ClockOrigin, SystemClock
from tests.support.markets import START, write_candles

ROOT = Path(__file__).parents[2]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infrastructure.paper_exchange", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def outcome(*arguments: str) -> tuple[int | None, str]:
    process = await start(*arguments)
    stdout, stderr = await process.communicate()
    assert not stdout
    return process.returncode, stderr.decode().strip()


async def ready(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        fields = json.loads(line)
        if fields["event"] == "paper_exchange_ready":
            return dict(fields)
    raise AssertionError("the exchange ended before it was ready")


async def test_what_is_wrong_is_told_in_one_line(tmp_path: Path) -> None:
    write_candles(tmp_path, "BTCUSDT", "1h", count=50)
    clock = tmp_path / "clock.json"
    clock.write_text("no clock")
    folder = str(tmp_path)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        cases = {
            ("--port", port): f"port {port} cannot be used",
            ("--port", "0", "--candles", f"{folder}/no"): "does not exist",
            ("--port", "0", "--candles", folder, "--symbols", "BTC/USDT:USDT,ETHUSDT"): "for ETHUSDT",
            ("--port", "0", "--symbols", "BTC-USD"): "'BTC-USD' is not known here",
            ("--port", "0", "--timeframe", "1y"): "timeframe '1y'",
            ("--port", "0", "--clock-file", str(clock)): "clock.json",
            ("--port", "0", "--start", "yesterday"): "--start is 'yesterday'",
            ("--port", "0", "--candles", folder, "--symbols", "BTCUSDT", "--start", "2001-01-01"): "no candle at",
        }  # fmt: skip
        results = await asyncio.gather(*(outcome(*arguments) for arguments in cases))
    for expected, (code, text) in zip(cases.values(), results, strict=True):
        assert code == 4, text
        assert text.startswith("error: ")
        assert "\n" not in text
        assert expected in text


async def test_wrong_usage_exits_with_two() -> None:
    code, text = await outcome("--no-such-option")
    assert (code, "usage:" in text) == (2, True)


@pytest.mark.parametrize("by_file", [True, False])
async def test_it_serves_the_market_time_it_was_given_and_ends_cleanly(tmp_path: Path, by_file: bool) -> None:
    write_candles(tmp_path, "BTCUSDT", "1m", count=400)
    market = START + timedelta(hours=3)
    clock = tmp_path / "clock.json"
    ClockOrigin(wall=SystemClock().now(), market=market, rate=60.0).save(clock)
    told = ["--clock-file", str(clock)] if by_file else ["--start", market.isoformat(), "--speed", "60"]
    common = ["--port", "0", "--admin-port", "0", "--candles", str(tmp_path), "--symbols", "BTC/USDT:USDT"]
    process = await start(*common, "--timeframe", "1m", *told)
    fields = await ready(process)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{fields['port']}") as client:
        rows = (await client.get("/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit=500")).json()
        newest = datetime.fromtimestamp(rows[-1][0] / 1000, UTC)
        assert market <= newest < market + timedelta(hours=1)
        assert datetime.fromtimestamp(rows[0][0] / 1000, UTC) == START
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{fields['admin_port']}") as admin:
        assert (await admin.get("/admin/books")).json()["wallet"] == "10000"
    process.terminate()
    await process.communicate()
    assert process.returncode == 0
