"""Replicas as processes of their own, one of which is killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from shared.rpc.messages import RPCResponse
from shared.rpc.signing import Signer
from tests.support.eventually import eventually
from tests.support.rpc_stage import Cast, RedisRpcStage, nothing_left

KEY = "k" * 32
CALLS = 1500
IN_FLIGHT = 50


@asynccontextmanager
async def replica(url: str, service: str, instance: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.rpc_program", url, service, instance, KEY,
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"serving\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_when_a_replica_is_killed_under_load_every_call_is_answered_and_rightly(redis_url: str) -> None:
    stage = RedisRpcStage(redis_url)
    cast = Cast(stage, signer=Signer(KEY.encode()))
    client = await cast.client()
    answers: dict[int, RPCResponse] = {}
    numbers = iter(range(CALLS))

    async def call_on() -> None:
        for number in numbers:
            answers[number] = await cast.ask(client, number, timeout=60)

    async with AsyncExitStack() as replicas:
        first = await replicas.enter_async_context(replica(redis_url, stage.service, "first"))
        await replicas.enter_async_context(replica(redis_url, stage.service, "second"))
        calls = asyncio.gather(*(call_on() for _ in range(IN_FLIGHT)))
        await eventually(lambda: len(answers) > CALLS // 3)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        assert len(answers) < CALLS
        await calls

        assert {number: answer.result for number, answer in answers.items()} == {
            number: {"number": number * 2} for number in range(CALLS)
        }
        await eventually(lambda: nothing_left(stage))
    await cast.close()
    await stage.connection.stop()
