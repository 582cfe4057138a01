"""The ai-service as the real process it is: first start, signals, SIGKILL, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import psutil
import pytest

from infrastructure.paper_exchange.server import bind
from shared.clock import ScaledClock, SystemClock
from shared.events.codec import decode
from shared.events.envelope import Event
from shared.events.streams import event_stream
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.redis_transport import RedisRpcTransport
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange

MINUTE = timedelta(minutes=1)
SMALL_TRAINING = {"TRAINING_CANDLES": "700"}


@dataclass
class Stage:
    """An exchange, a Redis, and a place for the service's state."""

    exchange: RunningExchange
    redis: RedisConnection
    environment: Mapping[str, str]
    http: httpx.AsyncClient
    folder: Path

    async def events(self, event_type: str) -> list[Event[Any]]:
        rows: Any = await self.redis.client.xrange(event_stream(event_type))
        events: list[Event[Any]] = [decode(fields) for _, fields in rows]
        return events

    async def health(self) -> dict[str, Any]:
        with suppress(httpx.HTTPError):
            found: dict[str, Any] = (await self.http.get("/health")).json()
            return found
        return {}

    async def ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return (await self.http.get("/health/ready")).status_code == 200
        return False

    @asynccontextmanager
    async def service(self, **environment: str) -> AsyncIterator[Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "services.ai_service"),
            env={**os.environ, **self.environment, **environment},
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def stage(redis_url: str, folder: Path, *, rate: float = 120) -> AsyncIterator[Stage]:
    listener = bind(0, "--port")
    port = listener.getsockname()[1]
    listener.close()
    redis = RedisConnection(redis_url, clock=SystemClock())
    await redis.start()
    stack = AsyncExitStack()
    stack.push_async_callback(redis.stop)
    async with (
        stack,
        paper_exchange(rate=rate) as exchange,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        clock_file = folder / "clock.json"
        cast("ScaledClock", exchange.live._market_clock)._origin.save(clock_file)
        environment = {
            "REDIS_URL": redis_url,
            "EXCHANGE_URL": exchange.url,
            "QT_SYMBOLS": "BTC/USDT:USDT,ETH/USDT:USDT",
            "QT_TIMEFRAME": "1m",
            "QT_RUN_ID": "r1",
            "QT_MARKET_CLOCK_FILE": str(clock_file),
            "QT_STATE_DIR": str(folder / "state"),
            "QT_PORT": str(port),
            **SMALL_TRAINING,
        }
        yield Stage(exchange, redis, environment, http, folder)


async def signals(s: Stage, count: int, symbol: str = "BTCUSDT") -> list[Event[Any]]:
    """Wait for ``count`` different signals of ``symbol`` and return them in order."""

    async def found() -> list[Event[Any]]:
        events = [event for event in await s.events("signal.generated") if event.payload.symbol == symbol]
        once = list({event.metadata.event_id: event for event in events}.values())
        return once if len(once) >= count else []

    return await eventually(found, what=f"{count} signals", timeout=60)


def closes(events: list[Event[Any]]) -> list[datetime]:
    return [datetime.fromisoformat(event.payload.metadata["candle_close_time"]) for event in events]


async def test_the_first_start_trains_tells_of_it_and_then_speaks(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url, tmp_path) as s, s.service() as process:
        before_ready = await eventually(s.health, what="health", timeout=30)
        assert before_ready["status"] == "DEGRADED"
        await eventually(s.ready, what="readiness", timeout=60)

        found = await signals(s, 5)
        assert closes(found) == [closes(found)[0] + MINUTE * number for number in range(len(found))]

        story = [event.payload for event in await s.events("learning.event")]
        assert [story[0].event_type, story[-1].event_type] == ["RETRAINING_STARTED", "RETRAINING_COMPLETED"]
        assert story[0].model_id == "lightgbm-1m"
        assert story[-1].model_version_after == found[0].payload.model_version
        candle_ids = {event.metadata.event_id: event for event in await s.events("candle.closed")}
        for event in found:
            cause = candle_ids[event.metadata.causation_id or ""]
            assert cause.metadata.trace_id == event.metadata.trace_id

        async def is_well() -> bool:
            return (await s.health()).get("status") == "OK"

        await eventually(is_well, what="an OK health")
        assert "(bootstrap)" in (await s.health())["modules"]["model"]

        async def tells_its_age() -> bool:
            beats = [event.payload for event in await s.events("service.heartbeat")]
            return any(beat.service_name == "ai-service" and beat.market_data_age_seconds is not None for beat in beats)

        await eventually(tells_its_age, what="a heartbeat with the age of the market data")

        client = RpcClient(
            RedisRpcTransport(s.redis), service="test", instance="one", clock=SystemClock(), ids=RandomIds()
        )
        await client.start()
        answer = await client.call(
            service="ai-service", command="get_signal", parameters={"symbol": "ETHUSDT"}, timeout=5
        )
        await client.stop()
        assert answer.status == "SUCCESS"
        assert answer.result is not None
        assert answer.result["action"] in ("BUY", "SELL", "HOLD")

        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_killed_service_comes_back_with_the_same_model_and_misses_no_candle(
    redis_url: str, tmp_path: Path
) -> None:
    async with stage(redis_url, tmp_path) as s:
        async with s.service() as process:
            first = await signals(s, 3)
            process.kill()
            await process.wait()
        trainings = len(await s.events("learning.event"))
        async with s.service():
            found = await signals(s, len(first) + 8)

            assert len(await s.events("learning.event")) == trainings
            assert closes(found) == [closes(found)[0] + MINUTE * number for number in range(len(found))]
            assert {event.payload.model_version for event in found} == {first[0].payload.model_version}
            said: dict[str, Any] = {}
            for event in await s.events("signal.generated"):
                assert said.setdefault(event.metadata.event_id, event.payload) == event.payload
            assert await s.redis.client.xlen("quantum:dlq:ai-service") == 0


async def test_a_training_dies_with_the_service_that_wanted_it(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url, tmp_path, rate=1) as s, s.service(TRAINING_CANDLES="100000") as process:

        async def is_training() -> psutil.Process | None:
            modules = (await s.health()).get("modules", {})
            workers = psutil.Process(process.pid).children()
            return workers[0] if workers and str(modules.get("model", "")).startswith("training") else None

        worker = await eventually(is_training, what="the training", timeout=30)
        assert worker is not None
        process.kill()
        await process.wait()

        await eventually(lambda: not worker.is_running() or worker.status() == "zombie", what="the worker's end")


async def test_a_worker_that_says_nothing_dies_with_its_parent_too() -> None:
    """A worker that reports would notice the closed pipe; one deep in a fit is ended by the kernel."""
    child = (
        "import signal, sys; from services.ai_service.training.__main__ import die_with; "
        "die_with(int(sys.argv[1])); print('bound', flush=True); signal.pause()"
    )
    parent = (
        "import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())]).wait()"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent, child, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"bound\n"
    [worker] = psutil.Process(process.pid).children()

    process.kill()
    await process.wait()

    await eventually(lambda: not worker.is_running() or worker.status() == "zombie", what="the worker's end")


async def test_a_wrong_setting_ends_the_process_with_one_line(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url, tmp_path) as s:
        code, said = await finished(s, "services.ai_service", TRADING_MODE="moon")

        assert code == 4
        assert len(said) == 1
        assert "TRADING_MODE=moon" in said[0]


async def finished(s: Stage, module: str, **environment: str) -> tuple[int | None, list[str]]:
    """Run ``module`` to its end; return its exit code and the lines it wrote to stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module),
        env={**os.environ, **s.environment, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode().strip().splitlines()


async def test_a_training_by_hand_puts_a_model_into_the_store(redis_url: str, tmp_path: Path) -> None:
    async with stage(redis_url, tmp_path) as s:
        code, said = await finished(s, "services.ai_service.training")

        assert code == 0
        [folder] = (tmp_path / "state" / "models" / "lightgbm-1m").iterdir()
        assert (folder / "manifest.json").is_file()
        assert said[-1].startswith(f"model {folder.name}: ")
        assert any(line.startswith("training  60 %") for line in said)


@pytest.mark.parametrize(
    ("name", "value", "code", "message"),
    [
        ("TRAINING_CANDLES", "many", 4, "TRAINING_CANDLES=many is wrong"),
        ("EXCHANGE_URL", "http://127.0.0.1:9", 1, "the exchange cannot be reached"),
        ("MIN_TRAINING_CANDLES", "100000", 1, "a model needs 100000"),
        ("QT_SYMBOLS", "NOPEUSDT", 1, "/fapi/v1/klines"),
    ],
)
async def test_a_training_that_cannot_be_done_says_why_in_its_last_line(  # noqa: PLR0917 - parametrised
    redis_url: str, tmp_path: Path, name: str, value: str, code: int, message: str
) -> None:
    async with stage(redis_url, tmp_path) as s:
        ended_with, said = await finished(s, "services.ai_service.training", **{name: value})

        assert ended_with == code
        assert said[-1].startswith("error: ")
        assert message in said[-1]
