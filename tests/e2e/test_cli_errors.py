"""Whatever is wrong with what the command line is given: one clear line on stderr and the right exit code."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.ports import free_ports
from infrastructure.supervisor.run_state import RunState, StateFile
from tests.support.command_line import Finished, run_command, start_command
from tests.support.eventually import eventually

#: One worker does all whole runs: two at a time would be too much for a small machine, and some share a record.
pytestmark = pytest.mark.xdist_group("whole-runs")


def assert_one_line(finished: Finished, *words: str) -> None:
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert finished.stdout == ""


@contextmanager
def listener() -> Iterator[int]:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        yield busy.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("up", "--symbols", "BTC/USDT:USDT,BITCOIN"), 4, ("'BITCOIN'", "BTC/USDT:USDT")),
        (("up", "--symbols", " , "), 4, ("name no market",)),
        (("up", "--timeframe", "1fortnight"), 4, ("'1fortnight'", "1h")),
        (("up", "--candles", "nowhere"), 4, ("nowhere", "does not exist", "synthetic")),
        (("up", "--candles", "live"), 4, ("live", "synthetic")),
        (("up", "--speed", "0"), 2, ("--speed",)),
        (("up", "--speed", "fast"), 2, ("--speed", "number")),
        (("up", "--for", "-5"), 2, ("--for",)),
        (("up", "--port-base", "99999"), 2, ("--port-base",)),
        (("up", "--frobnicate"), 2, ("--frobnicate",)),
        (("fly",), 2, ("fly",)),
        (("status",), 3, ("no system is running", "quantum-trader up")),
        (("events", "--symbol", "BITCOIN"), 2, ("BITCOIN",)),
        (("events", "--limit", "0"), 2, ("--limit",)),
        (("exchange", "--candles", "nowhere"), 4, ("nowhere", "does not exist")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_wrong_arguments(
    tmp_path: Path, arguments: tuple[str, ...], exit_code: int, words: tuple[str, ...]
) -> None:
    finished = await run_command(*arguments, cwd=tmp_path)

    assert finished.exit_code == exit_code, finished.stderr
    assert_one_line(finished, *words)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"QT_SYMBOLS": "BITCOIN"}, ("'BITCOIN'",)),
        ({"QT_TIMEFRAME": "hourly"}, ("'hourly'",)),
        ({"QT_AI_PORT": "http"}, ("QT_AI_PORT", "'http'")),
        ({"TRADING_MODE": "live"}, ("TRADING_MODE=live", "paper")),
        ({"REDIS_URL": "redis://127.0.0.1:1/0", "REDIS_URL_FILE": "x"}, ("REDIS_URL", "REDIS_URL_FILE")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, Mapping) else "",
)
async def test_wrong_environment(tmp_path: Path, environment: Mapping[str, str], words: tuple[str, ...]) -> None:
    finished = await run_command("up", "--port-base", "0", cwd=tmp_path, environment=environment)

    assert finished.exit_code == 4, finished.stderr
    assert_one_line(finished, *words)


async def test_a_busy_port(tmp_path: Path) -> None:
    with listener() as port:
        finished = await run_command(
            "up", "--port-base", "0", cwd=tmp_path, environment={"QT_EXEC_RISK_PORT": str(port)}
        )

    assert finished.exit_code == 4
    assert_one_line(finished, f"port {port}", "exec-risk-service", "busy", "QT_EXEC_RISK_PORT")


async def test_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    finished = await run_command("up", "--port-base", "0", "--state-dir", "file/var", cwd=tmp_path)

    assert finished.exit_code == 4
    assert_one_line(finished, "file/var", "cannot be written")


async def test_candle_files_that_are_too_short(tmp_path: Path) -> None:
    rows = [f"2025-05-04T{hour:02}:00:00Z,1,2,0.5,1,10" for hour in range(24)]
    (tmp_path / "BTC_USDT_USDT-1h-futures.csv").write_text("\n".join(["date,open,high,low,close,volume", *rows]) + "\n")

    finished = await run_command("up", "--candles", ".", "--symbols", "BTC/USDT:USDT", "--port-base", "0", cwd=tmp_path)

    assert finished.exit_code == 4
    assert_one_line(finished, "24 slots", "BTCUSDT")


async def test_a_market_without_a_candle_file(tmp_path: Path) -> None:
    finished = await run_command(
        "up", "--candles", ".", "--symbols", "NOPE/USDT:USDT", "--port-base", "0", cwd=tmp_path
    )

    assert finished.exit_code == 4
    assert_one_line(finished, "NOPE")


async def test_a_second_system_on_the_same_state_folder(tmp_path: Path) -> None:
    first = StateFile(tmp_path / "var")
    first.acquire()
    started = psutil.Process().create_time()
    first.write(RunState(os.getpid(), started, "20250504T120000-6c1f5f0e", "x", "ready", "2025-05-04T12:00:00+00:00"))

    finished = await run_command("up", "--port-base", "0", cwd=tmp_path)

    first.release()
    assert finished.exit_code == 1
    assert_one_line(finished, "already running", "20250504T120000-6c1f5f0e", str(os.getpid()))


async def test_the_exchange_on_a_busy_port(tmp_path: Path) -> None:
    with listener() as port:
        finished = await run_command("exchange", "--port", str(port), cwd=tmp_path)

    assert finished.exit_code == 4
    assert str(port) in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


async def test_the_exchange_runs_alone_until_it_is_interrupted(tmp_path: Path) -> None:
    [port] = free_ports(1)
    command = await start_command("exchange", "--port", str(port), cwd=tmp_path)
    http = LocalHttp()
    await eventually(http.probe(f"http://127.0.0.1:{port}/fapi/v1/ping"), what="the exchange")

    command.send(signal.SIGINT)
    finished = await command.ended()

    await http.close()
    assert finished.exit_code == 0, finished.stderr


async def test_help_names_every_command(tmp_path: Path) -> None:
    finished = await run_command("--help", cwd=tmp_path)

    assert finished.exit_code == 0
    assert all(command in finished.stdout for command in ("up", "status", "doctor", "events", "exchange", "replay"))


async def test_the_version_is_printed(tmp_path: Path) -> None:
    finished = await run_command("--version", cwd=tmp_path)

    assert finished.exit_code == 0
    assert finished.stdout.startswith("quantum-trader 3.")
