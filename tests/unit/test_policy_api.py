"""``/api/v1/policy`` over a store in memory: who gets in, what is refused, and what is written down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.analytics_os_service.api import ControlAccess, policy_router
from services.analytics_os_service.config import AnalyticsSettings
from shared.access import TokenGate
from shared.clock import ManualClock
from shared.errors import ConfigurationError, ConnectionLostError
from shared.policy.changes import PolicyChange
from shared.policy.document import PolicyDocument
from shared.policy.memory_store import MemoryPolicyStore
from shared.settings import load_settings
from tests.support.policy_stage import wish

TOKEN = "canary-4f1d7c0ba98e5d32-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PATH = "/api/v1/policy"


class Stage:
    def __init__(self, *, token: str | None = TOKEN, reads_are_open: bool = True) -> None:
        self.clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.store = MemoryPolicyStore(self.clock)
        gate = TokenGate(token, variable="QT_API_TOKEN", clock=self.clock)
        access = ControlAccess(gate, owner="operator", reads_are_open=reads_are_open)
        app = FastAPI()
        app.include_router(policy_router(self.store, access))
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://analytics")

    async def ask(self, method: str, path: str = "", *, status: int = 200, **options: Any) -> Any:
        """Send with the token, and return the body of an answer that must have this status."""
        options.setdefault("headers", {})
        options["headers"] = {**BEARER, **options["headers"]}
        answer = await self.http.request(method, PATH + path, **options)
        assert answer.status_code == status, answer.text
        if status != 200:
            assert "canary" not in answer.text
            assert isinstance(answer.json()["detail"], str)
            assert "\n" not in answer.json()["detail"]
        return answer.json()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.store.start()
    yield stage
    await stage.http.aclose()


# -- who gets in ------------------------------------------------------------------------------------------------------


async def test_without_a_configured_token_reading_works_and_changing_says_what_to_set() -> None:
    stage = Stage(token=None)
    await stage.store.start()

    assert (await stage.http.get(PATH)).status_code == 200
    refused = await stage.http.post(f"{PATH}/mode", headers=BEARER, json={"mode": "DEFENSIVE", "reason": "storm"})

    assert refused.status_code == 403
    assert "set QT_API_TOKEN to a random secret of at least 32 characters" in refused.json()["detail"]
    assert stage.store.current().version == 1


async def test_beyond_loopback_reading_needs_the_token_too() -> None:
    stage = Stage(reads_are_open=False)
    await stage.store.start()

    assert (await stage.http.get(PATH)).status_code == 401
    assert (await stage.http.get(f"{PATH}/history")).status_code == 401
    assert (await stage.ask("GET"))["version"] == 1


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", ""), ("POST", "/mode"), ("POST", "/rollback"), ("POST", "/defaults")]
)
async def test_no_change_without_the_token_whatever_the_body_says(stage: Stage, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = await stage.http.request(method, PATH + path, headers=headers, content=b"{ no json")
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    assert stage.store.current().version == 1


async def test_who_keeps_guessing_waits(stage: Stage) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    for _ in range(5):
        assert (await stage.http.put(PATH, headers=wrong)).status_code == 401

    refused = await stage.http.put(PATH, headers=BEARER)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    stage.clock.advance(1.0)
    await stage.ask("POST", "/mode", json={"mode": "DEFENSIVE", "reason": "storm"})


# -- changing ---------------------------------------------------------------------------------------------------------


async def test_a_read_a_change_and_a_read(stage: Stage) -> None:
    read = await stage.http.get(PATH)
    assert read.headers["ETag"] == '"1"'
    assert read.json()["active_mode"] == "NORMAL"
    assert read.json()["modes"]["DEFENSIVE"]["max_daily_drawdown"] == 0.03

    body = {"reason": "storm", "active_mode": "defensive", "modes": {"DEFENSIVE": {"max_leverage": 2}}}
    changed = await stage.http.put(PATH, headers={**BEARER, "If-Match": '"1"'}, json=body)

    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert changed.json()["modes"]["DEFENSIVE"]["max_leverage"] == 2
    read = await stage.http.get(PATH)
    assert (read.json()["active_mode"], read.json()["version"], read.json()["stale"]) == ("DEFENSIVE", 2, False)
    assert (read.json()["updated_by"], read.json()["reason"]) == ("operator", "storm")


async def test_who_changes_is_told_by_the_token_and_a_header_never_by_the_body(stage: Stage) -> None:
    body = {"mode": "DEFENSIVE", "reason": "storm"}
    await stage.ask("POST", "/mode", json=body, headers={"X-Operator": "ann@desk"})
    await stage.ask("POST", "/mode", json={**body, "updated_by": "the pope"}, status=422)
    await stage.ask("POST", "/mode", json=body, headers={"X-Operator": "x" * 65}, status=400)
    await stage.ask("POST", "/mode", json=body, headers={"X-Operator": "\x1b[31m"}, status=400)

    rows = (await stage.ask("GET", "/history"))["revisions"]
    assert [row["updated_by"] for row in rows] == ["operator (ann@desk)", "system_init"]


async def test_a_change_on_top_of_an_old_version_is_a_conflict_that_names_the_present_one(stage: Stage) -> None:
    await stage.ask("POST", "/mode", json={"mode": "DEFENSIVE", "reason": "storm"})

    for body, headers in (
        ({"reason": "late", "expected_version": 1}, {}),
        ({"reason": "late"}, {"If-Match": '"1"'}),
        ({"reason": "late"}, {"If-Match": 'W/"1"'}),
    ):
        refused = await stage.ask("PUT", json=body, headers=headers, status=409)
        assert refused["current_version"] == 2
        assert refused["detail"] == "the policy has version 2, not 1: read it again and decide again"
    for path, body in (
        ("/mode", {"mode": "NORMAL", "reason": "late", "expected_version": 1}),
        ("/rollback", {"to_version": 1, "reason": "late", "expected_version": 1}),
        ("/defaults", {"reason": "late", "expected_version": 1}),
    ):
        assert (await stage.ask("POST", path, json=body, status=409))["current_version"] == 2


async def test_a_put_must_say_what_it_has_read(stage: Stage) -> None:
    body = {"reason": "storm", "active_mode": "DEFENSIVE"}
    await stage.ask("PUT", json=body, status=428)
    await stage.ask("PUT", json=body, headers={"If-Match": "*"}, status=428)
    await stage.ask("PUT", json=body, headers={"If-Match": "seven"}, status=400)
    await stage.ask("PUT", json={**body, "expected_version": 2}, headers={"If-Match": '"1"'}, status=400)
    await stage.ask("PUT", json={**body, "expected_version": 1}, headers={"If-Match": '"1"'})


async def test_rollback_and_defaults(stage: Stage) -> None:
    await stage.store.change(wish(max_leverage=5))
    await stage.store.change(wish(max_leverage=6))

    assert (await stage.ask("POST", "/rollback", json={"to_version": 2, "reason": "no"}))["version"] == 4
    assert stage.store.current().policy.max_leverage == 5
    refused = await stage.ask("POST", "/rollback", json={"to_version": 9, "reason": "no"}, status=422)
    assert refused["detail"] == "version 9 is not in the audit trail, which holds 1 to 4"
    body = {"mode": "NORMAL", "reason": "afresh"}
    assert (await stage.ask("POST", "/defaults", json=body))["modes"]["NORMAL"]["max_leverage"] == 20


async def test_the_history_is_paged(stage: Stage) -> None:
    for leverage in range(2, 6):
        await stage.store.change(wish(max_leverage=leverage))

    first = (await stage.ask("GET", "/history?limit=2"))["revisions"]
    rest = (await stage.ask("GET", f"/history?before={first[-1]['version']}"))["revisions"]

    assert [row["version"] for row in (*first, *rest)] == [5, 4, 3, 2, 1]
    assert first[0]["changed"] == {"NORMAL": {"max_leverage": [4.0, 5.0]}}
    await stage.ask("GET", "/history?limit=0", status=422)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": "\x1b[1m\n"}, "reason is empty"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "x", "modes": {"NORMAL": {"max_levrage": 5}}}, "did you mean max_leverage?"),
        ({"reason": "x", "modes": {"NORMAL": {"max_leverage": "5"}}}, "NORMAL.max_leverage='5'"),
        ({"reason": "x", "modes": {"NORMAL": {"max_leverage": True}}}, "NORMAL.max_leverage=True"),
        ({"reason": "x", "modes": {"NORMAL": {"max_risk_pct_per_trade": 1}}}, "a fraction: 0.01 is 1 %"),
        ({"reason": "x", "modes": {"YOLO": {"max_leverage": 5}}}, "'YOLO' is no mode of the policy"),
        ({"reason": "x", "modes": ["NORMAL"]}, "modes"),
        ({"reason": "x", "active_mode": 1}, "active_mode"),
        ({"reason": "x", "expected_version": "1"}, "expected_version"),
        ({"reason": "x", "token": TOKEN}, "token"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_said_in_one_line_and_changes_nothing(stage: Stage, body: Any, told: str) -> None:
    refused = await stage.ask("PUT", json={"expected_version": 1, **body}, status=422)

    assert told in refused["detail"]
    assert stage.store.current().version == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"reason": "x", "expected_version": 1, "modes": {"NORMAL": {"max_leverage": NaN}}}',
        b'{"reason": "x", "expected_version": 1, "modes": {"NORMAL": {"max_leverage": 1e999}}}',
        b'{"reason": "x", "expected_version": 1, "modes": {"NORMAL": {"max_positions": 1' + b"0" * 5000 + b"}}}",
        b'{"reason": "\\ud800", "expected_version": 1, "active_mode": "\\ud800"}',
    ],
    ids=lambda content: content[:80],
)
async def test_bytes_that_are_no_wish_are_refused(stage: Stage, content: bytes) -> None:
    answer = await stage.http.put(PATH, headers={**BEARER, "Content-Type": "application/json"}, content=content)

    assert answer.status_code in (400, 422), answer.text
    assert stage.store.current().version == 1


async def test_a_body_that_is_too_large_is_not_read_to_its_end(stage: Stage) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 1024

    headers = {**BEARER, "Content-Type": "application/json"}
    answer = await stage.http.put(PATH, headers=headers, content=chunks())

    assert answer.status_code == 413
    assert answer.json()["detail"] == "the body is larger than 65536 bytes"


class AwayStore(MemoryPolicyStore):
    """A store whose server is away."""

    async def change(self, change: PolicyChange, *, expected_version: int | None = None) -> PolicyDocument:
        raise ConnectionLostError(f"Redis at redis://:{TOKEN}@host cannot be reached")


async def test_while_redis_is_away_reading_works_and_changing_is_503_without_secrets() -> None:
    stage = Stage()
    stage.store = AwayStore(stage.clock)
    app = FastAPI()
    gate = TokenGate(TOKEN, variable="QT_API_TOKEN", clock=stage.clock)
    app.include_router(policy_router(stage.store, ControlAccess(gate, owner="operator", reads_are_open=True)))
    stage.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://analytics")

    assert (await stage.ask("GET"))["version"] == 0
    refused = await stage.ask("POST", "/mode", json={"mode": "NORMAL", "reason": "calm"}, status=503)
    assert refused["detail"] == "Redis at redis://:***@host cannot be reached"


# -- the setting ------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://desk@127.0.0.1/desk")
    for name in ("QT_API_TOKEN", "QT_API_TOKEN_FILE", "QT_HOST"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_there_is_no_token_by_default(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings(AnalyticsSettings)
    assert settings.api_token is None
    assert settings.is_on_loopback


def test_the_token_can_come_from_a_file_and_is_known_as_a_secret(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    environment.setenv("QT_API_TOKEN_FILE", str(tmp_path / "token"))

    settings = load_settings(AnalyticsSettings)

    assert settings.api_token == TOKEN
    assert TOKEN in settings.secret_values()
    assert TOKEN not in repr(settings)


@pytest.mark.parametrize(
    "token",
    [TOKEN[:31], "x" * 40, "changeme" * 4, "canary 4f1d7c0ba98e5d32 0123456789", "cänary-4f1d7c0ba98e5d32-01234"],
)
def test_a_token_that_could_be_guessed_stops_the_start_in_one_line(environment: pytest.MonkeyPatch, token: str) -> None:
    environment.setenv("QT_API_TOKEN", token)

    with pytest.raises(ConfigurationError) as raised:
        load_settings(AnalyticsSettings)

    message = str(raised.value)
    assert message.startswith("QT_API_TOKEN is wrong: must be a random secret of at least 32 ASCII characters")
    assert token not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("host", "is_on_loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.0.0.7", False), ("desk", False)],
)
def test_only_loopback_addresses_count_as_this_machine(
    environment: pytest.MonkeyPatch, host: str, is_on_loopback: bool
) -> None:
    environment.setenv("QT_HOST", host)
    assert load_settings(AnalyticsSettings).is_on_loopback is is_on_loopback
