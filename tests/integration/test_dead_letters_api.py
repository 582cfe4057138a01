"""``/api/v1/dead-letters`` of a service that has some."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from services.analytics_os_service.app import create_app
from services.analytics_os_service.config import AnalyticsSettings
from shared.clock import SystemClock
from shared.events.streams import dead_letter_stream, event_stream
from shared.redis_connection import RedisConnection
from tests.support.eventually import eventually

TOKEN = "canary-4f1d7c0ba98e5d32-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def analytics(redis_url: str, database_url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service in this process for the block, and give a client of its API."""
    app = create_app(
        AnalyticsSettings(
            _env_file=None,
            redis_url=redis_url,
            postgres_url=database_url,
            state_dir=folder,
            qt_api_token=SecretStr(TOKEN),
        )
    )
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://analytics")
    async with app.router.lifespan_context(app), client:

        async def is_ready() -> bool:
            return (await client.get("/health/ready")).status_code == 200

        await eventually(is_ready, what="readiness")
        yield client


@asynccontextmanager
async def connected(redis_url: str) -> AsyncIterator[RedisConnection]:
    """Give a connection for the block."""
    connection = RedisConnection(redis_url, clock=SystemClock())
    try:
        yield connection
    finally:
        await connection.stop()


async def test_events_that_the_service_could_not_read_are_shown_sent_again_and_dropped(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    path = "/api/v1/dead-letters"
    async with analytics(redis_url, database_url, tmp_path) as http, connected(redis_url) as connection:
        box = dead_letter_stream("analytics-os-service")
        for _ in range(2):
            await connection.execute(
                (
                    "XADD",
                    event_stream("system.alert"),
                    "*",
                    "metadata",
                    b"\xff{",
                    "payload",
                    b'{"note": "api_key=canary"}',
                )
            )

        async def listed() -> list[dict[str, Any]]:
            answer = await http.get(path, params={"service": "analytics-os-service"}, headers=BEARER)
            assert answer.status_code == 200
            found: list[dict[str, Any]] = answer.json()["dead_letters"]
            return found if len(found) == 2 == answer.json()["counts"]["analytics-os-service"] else []

        assert (await http.get(path)).status_code == 401
        first, second = await eventually(listed, what="dead letters")
        assert (first["event_type"], first["event_id"]) == ("system.alert", None)
        assert "DecodeError" in first["error"]
        one = f"{path}/{first['service']}/{first['id']}"
        details = (await http.get(one, headers=BEARER)).json()
        assert details["fields"]["payload"] == '{"note": "api_key=***"}'
        assert details["fields"]["metadata"] == "\\xff{"

        assert (await http.delete(one)).status_code == 401
        assert (await http.delete(one, headers=BEARER)).json() == {"dropped": 1}
        assert (await http.delete(one, headers=BEARER)).status_code == 404
        assert (await http.get(f"{path}/ai-service/1", headers=BEARER)).status_code == 422

        await connection.execute(("XADD", box, "*", "origin", "quantum:policy:current", "raw_x", "1"))
        wish_all = {"service": "analytics-os-service", "all": True, "reason": "mended"}
        assert (await http.post(f"{path}/redrive", json=wish_all)).status_code == 401
        redriven = (await http.post(f"{path}/redrive", json=wish_all, headers=BEARER)).json()
        assert redriven["sent"] == 1
        assert "is no stream of events" in redriven["refused"][0]["why"]
        ids = [letter["id"] for letter in await eventually(listed, what="the poison back in its box")]
        assert second["id"] not in ids

        neither = {"service": "analytics-os-service"}
        assert (await http.post(f"{path}/redrive", json=neither, headers=BEARER)).status_code == 422
        by_id = {"service": "analytics-os-service", "ids": ids}
        redriven = (await http.post(f"{path}/redrive", json=by_id, headers=BEARER)).json()
        assert (redriven["sent"], len(redriven["refused"])) == (1, 1)
