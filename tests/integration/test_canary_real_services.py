"""The real services with secrets that nothing accepts: they say what is wrong, and none of the secrets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from infrastructure.embedded.loopback import free_port
from services.ai_service.config import AiServiceSettings
from services.analytics_os_service.config import AnalyticsSettings
from services.exec_risk_service.config import ExecRiskSettings
from shared.settings import ServiceSettings
from tests.support.eventually import eventually

#: What must never be seen; it stands in no path and no name.
CANARY = "kanarie"
SETTINGS: dict[str, type[ServiceSettings]] = {
    "ai_service": AiServiceSettings,
    "exec_risk_service": ExecRiskSettings,
    "analytics_os_service": AnalyticsSettings,
}
#: Nothing listens on port 1.
URLS = {
    "redis_url": f"redis://desk:{CANARY}-redis@127.0.0.1:1/0",
    "postgres_url": f"postgresql://desk:{CANARY}-postgres@127.0.0.1:1/none",
}


def secret_settings(settings: type[ServiceSettings]) -> dict[str, str]:
    """Return a secret for every setting that is kept out of ``repr`` or is typed as a secret."""
    found = {}
    for name, field in settings.model_fields.items():
        if not field.repr or "SecretStr" in str(field.annotation):
            found[name] = URLS.get(name, f"{CANARY}-{name.replace('_', '')}-0123456789-abcdefghij-xyz")
    return found


@asynccontextmanager
async def running(service: str, folder: Path) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    port = free_port()
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {name.upper(): value for name, value in secret_settings(SETTINGS[service]).items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"services.{service}",
        cwd=folder,
        env={
            **environment,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "QT_PORT": str(port),
            "QT_STATE_DIR": str(folder),
            "EXCHANGE_URL": "http://127.0.0.1:1",
            "LOG_LEVEL": "DEBUG",
        },
        stdout=PIPE,
        stderr=PIPE,
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as http:
        try:
            yield process, http
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def lines_until(process: Process, text: str) -> list[str]:
    """Return the lines of the log up to the first one with ``text``."""
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or text not in lines[-1]:
        line = await asyncio.wait_for(process.stderr.readline(), 60)
        assert line, f"the service ended: {lines}"
        lines.append(line.decode())
    return lines


@pytest.mark.parametrize("service", SETTINGS)
async def test_a_service_that_cannot_connect_says_why_and_no_secret(service: str, tmp_path: Path) -> None:
    async with running(service, tmp_path) as (process, http):
        log = await lines_until(process, "127.0.0.1:1")
        paths = ("/health", "/health/ready", "/metrics", "/openapi.json", "/nowhere")
        answers = [await eventually(partial(answer_of, http, path)) for path in paths]
        process.send_signal(signal.SIGTERM)
        output, errors = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 0
    assert output == b""
    log += errors.decode().splitlines()
    assert all(json.loads(line)["service"] for line in log)
    for text in (*log, *filter(None, answers), *written(tmp_path)):
        at = text.find(CANARY)
        assert at < 0, text[max(0, at - 300) : at + 60]


async def answer_of(http: httpx.AsyncClient, path: str) -> str | None:
    """Return what is answered; None while nobody listens yet."""
    try:
        return (await http.get(path)).text
    except httpx.TransportError:
        return None


def written(folder: Path) -> list[str]:
    """Return the files that the service wrote."""
    return [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("service", SETTINGS)
def test_every_secret_setting_is_known_to_the_masker(service: str) -> None:
    given: dict[str, Any] = secret_settings(SETTINGS[service])
    settings = SETTINGS[service](_env_file=None, **given)

    masked = " ".join(settings.secret_values())
    assert {"redis_url", "binance_api_key", "binance_api_secret"} <= set(given)
    for name, value in given.items():
        secret = value.split(":")[2].split("@")[0] if name in URLS else value
        assert secret in masked, name
    assert CANARY not in repr(settings)
