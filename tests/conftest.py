"""Fixtures that several test folders share: real servers, started once per run, fresh for every test."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from infrastructure.embedded.postgres_server import EmbeddedPostgres
from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.eventually import eventually
from tests.support.redis_cluster import RedisClusterServers

_REDIS_DATABASES = 16
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole runs, which wait most: one worker does them while the other does the rest."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/e2e/"))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that also the servers' unprivileged user can reach; pytest's own are closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="quantum-trader-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[EmbeddedRedis]:
    """A running Redis for the whole test run; tests take ``redis_url``."""
    server = EmbeddedRedis(server_folder / "redis")
    _in_own_loop(server.start())
    yield server
    _in_own_loop(server.stop())


@pytest.fixture(scope="session")
def redis_server_url(redis_server: EmbeddedRedis) -> str:
    """URL of the running Redis, for tests that keep apart by names of their own or sort out a database themselves."""
    return redis_server.url


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """URL of an empty Redis database that no other test uses at the same time."""
    base = redis_server.url.rpartition("/")[0]
    url = f"{base}/{next(_numbers) % _REDIS_DATABASES}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="session")
def redis_cluster_servers(server_folder: Path) -> Iterator[RedisClusterServers]:
    """A running Redis Cluster of three masters for the whole test run; tests take ``redis_cluster``."""
    servers = RedisClusterServers(server_folder / "cluster")
    _in_own_loop(servers.start())
    yield servers
    _in_own_loop(servers.stop())


@pytest.fixture
def redis_cluster(redis_cluster_servers: RedisClusterServers) -> RedisClusterServers:
    """The running Redis Cluster, empty; a test may move slots, and must leave every node alive."""
    redis_cluster_servers.clear()
    return redis_cluster_servers


@pytest.fixture
def redis_cluster_url(redis_cluster: RedisClusterServers) -> str:
    """URL of the running Redis Cluster, empty."""
    return redis_cluster.url


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL for the whole test run; tests take ``database_url``."""
    server = EmbeddedPostgres(server_folder / "postgres", durable=False)
    _in_own_loop(server.start())
    yield server
    _in_own_loop(server.stop())


@pytest.fixture(scope="session")
def postgres_url(postgres_server: EmbeddedPostgres) -> str:
    """URL of the server's main database, for a role that may create databases."""
    return postgres_server.url


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """URL of an empty PostgreSQL database for one test."""
    name = f"test_{next(_numbers)}"
    await _run_sql(postgres_url, f"CREATE DATABASE {name}")
    yield f"{postgres_url.rpartition('/')[0]}/{name}"

    async def is_dropped() -> bool:
        try:
            await _run_sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")
        except asyncpg.InsufficientPrivilegeError:
            return False  # autovacuum is at work in it, and only a superuser may end that
        return True

    await eventually(is_dropped, what="the database dropped")


def _in_own_loop(work: Coroutine[Any, Any, object]) -> None:
    """Run ``work`` to its end, also when an async fixture asks for the server while its loop is running."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, work).result()


async def _run_sql(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
