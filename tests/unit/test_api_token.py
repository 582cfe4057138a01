"""The token that a run draws for its control endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrastructure.supervisor.api_token import api_token_file
from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.paper_run import AI, ANALYTICS, EXEC_RISK, PaperRun, RunOptions
from infrastructure.supervisor.ports import Ports
from infrastructure.supervisor.run_directory import RunDirectory
from services.analytics_os_service.config import AnalyticsSettings
from shared.clock import SystemClock

OWN = "canary-4f1d7c0ba98e5d32-0123456789"


def test_the_token_is_drawn_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = api_token_file(tmp_path)

    token = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert api_token_file(tmp_path).read_text() == token
    assert [file.name for file in tmp_path.iterdir()] == ["api_token"]
    (tmp_path / "other").mkdir()
    assert api_token_file(tmp_path / "other").read_text() != token


def test_a_draft_that_a_crash_has_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "api_token.tmp").write_text("half a tok")

    assert len(api_token_file(tmp_path).read_text()) == 65


def told(folder: Path, name: str, environment: dict[str, str]) -> dict[str, str]:
    """Return what a run tells the service about the token."""
    options = RunOptions("synthetic", ("BTCUSDT",), "1h", 1.0, 1, folder, 0)
    servers = {"REDIS_URL": "redis://127.0.0.1:6379/0", "POSTGRES_URL": "postgresql://desk@127.0.0.1/desk"}
    run = PaperRun(
        options,
        run_id="run",
        directory=RunDirectory(folder),
        ports=Ports(ai=1, exec_risk=2, analytics=3, exchange=4, exchange_admin=5),
        environment={**servers, **environment},
        clock=SystemClock(),
        http=LocalHttp(),
    )
    given = run._service_environment(name)
    return {variable: value for variable, value in given.items() if variable.startswith("QT_API_TOKEN")}


def test_the_service_is_told_the_file_and_accepts_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = told(tmp_path, ANALYTICS, {})
    assert given == {"QT_API_TOKEN_FILE": str(tmp_path / "api_token")}
    assert told(tmp_path, EXEC_RISK, {}) == given, "it can be stopped and resumed by routes of its own"
    assert told(tmp_path, AI, {}) == {}

    monkeypatch.setenv("QT_API_TOKEN_FILE", given["QT_API_TOKEN_FILE"])
    settings = AnalyticsSettings(
        _env_file=None, redis_url="redis://127.0.0.1:6379/0", postgres_url="postgresql://desk@127.0.0.1/desk"
    )
    assert settings.api_token == (tmp_path / "api_token").read_text().strip()


@pytest.mark.parametrize("variable", ["QT_API_TOKEN", "QT_API_TOKEN_FILE"])
def test_a_token_of_ones_own_is_left_alone(tmp_path: Path, variable: str) -> None:
    (tmp_path / "mine").write_text(OWN)
    own = {variable: OWN if variable == "QT_API_TOKEN" else str(tmp_path / "mine")}

    assert told(tmp_path, ANALYTICS, own) == own
    assert not (tmp_path / "api_token").exists()
