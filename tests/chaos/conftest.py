"""Every chaos test has servers and processes of its own, because it kills them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.chaos_programs import Crew
from tests.support.chaos_redis import RedisView


@pytest.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Crew]:
    """The programs of this test."""
    crew = Crew(tmp_path)
    yield crew
    await crew.end()


@pytest.fixture
async def server(server_folder: Path, tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A running Redis of this test alone."""
    server = EmbeddedRedis(server_folder / tmp_path.name)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def view(server: EmbeddedRedis) -> AsyncIterator[RedisView]:
    """What that Redis knows."""
    view = RedisView(server.url)
    yield view
    await view.close()
