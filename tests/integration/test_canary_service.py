"""No secret leaves a service: not by its log, its HTTP answers, Redis, or its spans, however its parts fail."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import redis.asyncio

from infrastructure.embedded.loopback import free_port
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.events.streams import dead_letter_stream
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.redis_transport import RedisRpcTransport
from tests.support.canary_desk import SERVICE
from tests.support.event_payloads import candle
from tests.support.eventually import eventually
from tests.support.otlp_collector import OtlpCollector

#: What must never be seen. It stands in no path and no name, so that only the values can give it away.
CANARY = "kanarie"
REDIS_PASSWORD = f"{CANARY}-redis-9c1f"
SECRETS = {
    "BINANCE_API_KEY": f"{CANARY}-key-7f3a",
    "BINANCE_API_SECRET": f'{CANARY}-secret-"5b\\2',
    "CONTROL_TOKEN": f"{CANARY} token/with%20signs+",
    "POSTGRES_URL": f"postgresql://desk:{quote(f'{CANARY}-postgres-@:1d', safe='')}@127.0.0.1:1/none",
    "COLLECTOR_HEADERS": f"x-desk={CANARY}-collector-4e",
}


@dataclass
class Stage:
    """The service, whoever talks to it, and all that came out."""

    process: Process
    http: httpx.AsyncClient
    bus: RedisStreamsBus
    rpc: RpcClient
    database: Any  # redis-py types its answers as unions that every line would have to take apart
    collector: OtlpCollector
    answers: list[str] = field(default_factory=list)

    async def get(self, path: str) -> httpx.Response:
        """Ask, and keep what was answered."""
        answer = await self.http.get(path)
        self.answers.append(f"{answer.headers}\n{answer.text}")
        return answer

    async def is_ready(self) -> bool:
        assert self.process.returncode is None, "the service ended; its log says why"
        try:
            return (await self.http.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def dead_letters(self) -> list[dict[bytes, bytes]]:
        rows = await self.database.xrange(dead_letter_stream(SERVICE))
        return [fields for _, fields in rows]

    async def stored(self) -> list[str]:
        """Return everything that Redis holds, as text."""
        found = []
        async for key in self.database.scan_iter():
            kind = await self.database.type(key)
            value: Any = await (self.database.xrange(key) if kind == b"stream" else self.database.dump(key))
            found.append(f"{key!r}: {value!r}")
        return found

    async def end(self) -> str:
        """Stop the service and return its log."""
        self.process.send_signal(signal.SIGTERM)
        output, errors = await asyncio.wait_for(self.process.communicate(), 30)
        assert output == b""
        return errors.decode()


async def started(environment: dict[str, str], folder: Path) -> Process:
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.canary_desk",
        cwd=folder,
        env={**clean, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        stdout=PIPE,
        stderr=PIPE,
    )


@pytest.fixture
async def account(redis_url: str) -> AsyncIterator[str]:
    """URL for a user of Redis whose password is a canary; in the log it must not stand, and on the wire it must."""
    client: Any = redis.asyncio.Redis.from_url(redis_url)
    await client.execute_command("ACL", "SETUSER", "desk", "on", f">{REDIS_PASSWORD}", "~*", "&*", "+@all")
    parts = urlsplit(redis_url)
    yield parts._replace(netloc=f"desk:{REDIS_PASSWORD}@{parts.hostname}:{parts.port}").geturl()
    await client.execute_command("ACL", "DELUSER", "desk")
    await client.aclose()


@pytest.fixture
async def stage(account: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    clock, ids, port = SystemClock(), RandomIds(), free_port()
    connection = RedisConnection(redis_url, clock=clock)
    with OtlpCollector() as collector:
        process = await started(
            {**SECRETS, "REDIS_URL": account, "QT_PORT": str(port), "COLLECTOR_URL": collector.endpoint}, tmp_path
        )
        bus = RedisStreamsBus(
            connection, service="ai-service", instance="one", clock=clock, ids=ids, market_clock=clock
        )
        rpc = RpcClient(RedisRpcTransport(connection), service="ai-service", instance="one", clock=clock, ids=ids)
        await connection.start()
        await bus.start()
        await rpc.start()
        http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0)
        async with http, redis.asyncio.Redis.from_url(redis_url) as database:
            yield Stage(process, http, bus, rpc, database, collector)
        if process.returncode is None:
            process.kill()
            await process.communicate()
        await rpc.stop()
        await bus.stop()
        await connection.stop()


async def test_whatever_fails_no_secret_comes_out(stage: Stage) -> None:
    await eventually(stage.is_ready, what="readiness")

    assert (await stage.get("/say")).json() == "said"
    assert (await stage.get("/refuse")).status_code == 422
    assert (await stage.get("/break")).status_code == 500
    assert "exchange" in (await stage.get("/health")).json()["dependencies"]
    for path in ("/metrics", "/health/ready", "/nowhere", "/docs", "/openapi.json"):
        await stage.get(path)
    published = await stage.bus.publish("candle.closed", candle())
    (letter,) = await eventually(stage.dead_letters, what="the dead letter")
    refusals = [
        await stage.rpc.call(service=SERVICE, command=command, parameters=parameters, timeout=10.0)
        for command, parameters in (
            ("get_positions", {}),
            ("get_position_status", {"symbol": "BTCUSDT"}),
            ("get_positions", {"password": "unknown field"}),
        )
    ]
    stored = await stage.stored()
    log = await stage.end()

    for name, texts in {
        "log": [log],
        "HTTP": stage.answers,
        "RPC": [str(refusal) for refusal in refusals],
        "Redis": stored,
        "spans": [body.decode(errors="replace") for body in stage.collector.bodies],
    }.items():
        assert texts, name
        for text in texts:
            at = text.find(CANARY)
            assert at < 0, f"{name}: {text[max(0, at - 200) : at + 60]}"

    # All of it was told, only not the secrets.
    assert "refused: ***" in letter[b"error"].decode()
    assert not set("\r\n\x1b") & set(letter[b"error"].decode())
    assert refusals[0].error_message is not None
    assert "refused: ***" in refusals[0].error_message
    assert "refused: ***" in stage.answers[1]
    lines = [json.loads(line) for line in log.splitlines()]
    told = {line["event"] for line in lines}
    assert told >= {"said", "failed", "uncaught_exception", "dead_letter", "rpc_handler_failed", "request_failed"}
    (failed,) = [line for line in lines if line["event"] == "dead_letter"]
    assert failed["trace_id"] == published.metadata.trace_id
    assert stage.collector.named("handle candle.closed").message.startswith("PermanentError: refused: ***")
    assert stage.collector.headers["x-desk"].startswith(CANARY)  # the one place where it belongs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", f"{CANARY}://desk:{CANARY}@127.0.0.1"),
        ("POSTGRES_URL", f"{CANARY}-without-a-scheme"),
        ("COLLECTOR_URL", f"ftp://desk:{CANARY}@127.0.0.1"),
        ("COLLECTOR_HEADERS", CANARY),
        ("CONTROL_TOKEN_FILE", "missing"),
    ],
)
async def test_a_secret_that_is_refused_is_not_repeated(name: str, value: str, tmp_path: Path) -> None:
    settings = {
        **SECRETS,
        "REDIS_URL": f"redis://desk:{REDIS_PASSWORD}@127.0.0.1:1/0",
        "QT_PORT": str(free_port()),
        "COLLECTOR_URL": "http://127.0.0.1:1",
        name: value,
    }
    process = await started(settings, tmp_path)
    output, errors = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 4, errors
    assert output == b""
    (line,) = [json.loads(text) for text in errors.splitlines()]
    assert line["event"] == "configuration_wrong"
    assert CANARY not in errors.decode()
