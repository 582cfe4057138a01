"""Ten minutes of random lives, seed after seed from 0. A seed that fails is named, and can be lived again.

``QT_SOAK_SEED=17 make test-long ARGS="tests/chaos/test_soak.py"`` lives one life again, ``QT_SOAK_SECONDS`` sets
another length than ten minutes.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
import redis

from shared.clock import ClockOrigin, SystemClock
from tests.support.account_stage import account_stage
from tests.support.markets import BTC, START
from tests.support.random_life import live_through, prices

SECONDS = float(os.environ.get("QT_SOAK_SECONDS", "600"))


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 300)
async def test_every_random_life_ends_with_sound_books(redis_url: str, postgres_url: str, tmp_path: Path) -> None:
    clock = SystemClock()
    began, fills = clock.monotonic(), 0
    for seed in _seeds():
        if clock.monotonic() - began > SECONDS:
            break
        try:
            fills += await _live(seed, redis_url, postgres_url, tmp_path)
        except BaseException:
            sys.stderr.write(f"\nseed {seed} failed; live it again with QT_SOAK_SEED={seed}\n")
            raise
    sys.stderr.write(f"\nlived up to seed {seed} in {clock.monotonic() - began:.0f} s, {fills} fills\n")
    assert fills > 0


def _seeds() -> Iterator[int]:
    chosen = os.environ.get("QT_SOAK_SEED")
    return itertools.count() if chosen is None else iter((int(chosen),))


async def _live(seed: int, redis_url: str, postgres_url: str, folder: Path) -> int:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    name = f"soak_{seed}"
    await _run_sql(postgres_url, f"CREATE DATABASE {name}")
    url = f"{postgres_url.rpartition('/')[0]}/{name}"
    # The account's record begins in the market's past, so that no payment is part of the first balance.
    origin = ClockOrigin(wall=SystemClock().now(), market=START - timedelta(hours=1), rate=1.0)
    origin.save(folder / f"clock-{seed}.json")
    told: list[str] = []
    async with account_stage(redis_url, url, folder / str(seed), prices=prices(seed)) as stage:
        stage.environment["QT_MARKET_CLOCK_FILE"] = str(folder / f"clock-{seed}.json")
        try:
            await live_through(stage, seed, told.append)
            await stage.end()
            await stage.assert_sound()
            fills = len(stage.engine.fills(BTC))
        except BaseException:
            sys.stderr.write("\n".join(told))
            raise
    await _run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
    return fills


async def _run_sql(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
