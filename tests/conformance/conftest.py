"""The stages that the bus plays on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.bus_stage import MemoryStage, RedisStage, Stage

#: What each broker needs to run; None is nothing.
_SERVERS = {"memory": None, "redis": "redis_url", "cluster": "redis_cluster_url"}


@pytest.fixture(params=list(_SERVERS))
def server_url(request: pytest.FixtureRequest) -> str | None:
    """Return where the broker is; None for the memory bus, which needs no server."""
    fixture = _SERVERS[request.param]
    return None if fixture is None else str(request.getfixturevalue(fixture))


@pytest.fixture
async def stage(server_url: str | None) -> AsyncIterator[Stage]:
    stage: MemoryStage | RedisStage = MemoryStage() if server_url is None else RedisStage(server_url)
    await stage.open()
    yield stage
    await stage.close()
