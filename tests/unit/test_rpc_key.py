"""The key of an installation: who gets it, and what is no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrastructure.supervisor.http_client import LocalHttp
from infrastructure.supervisor.paper_run import SERVICES, PaperRun, RunOptions
from infrastructure.supervisor.ports import Ports
from infrastructure.supervisor.run_directory import RunDirectory
from services.ai_service.config import AiServiceSettings
from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.rpc.signing import signer_of
from shared.settings import load_settings


def told(folder: Path, environment: dict[str, str]) -> list[str | None]:
    """Return the key that each service of a new run is told."""
    servers = {"REDIS_URL": "redis://127.0.0.1:6379/0", "POSTGRES_URL": "postgresql://desk@127.0.0.1/desk"}
    run = PaperRun(
        RunOptions("synthetic", ("BTCUSDT",), "1h", 1.0, 1, folder, 0),
        run_id="run",
        directory=RunDirectory(folder),
        ports=Ports(ai=1, exec_risk=2, analytics=3, exchange=4, exchange_admin=5),
        environment={**servers, **environment},
        clock=SystemClock(),
        http=LocalHttp(),
    )
    return [run._service_environment(name).get("QT_RPC_KEY") for name in SERVICES]


def test_all_services_of_a_run_get_the_same_key_and_those_of_another_run_another_one(tmp_path: Path) -> None:
    first, second = told(tmp_path, {}), told(tmp_path, {})

    assert len(set(first)) == len(set(second)) == 1
    assert first != second
    assert len(first[0] or "") == 64


def test_a_key_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)

    assert told(tmp_path, {"QT_RPC_KEY": "o" * 32}) == ["o" * 32] * 3
    assert told(tmp_path, {"QT_RPC_KEY_FILE": str(tmp_path / "key")}) == [None] * 3


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)  # no .env here
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    return monkeypatch


def test_there_is_no_key_by_default_and_one_from_a_file_signs(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_settings(AiServiceSettings).qt_rpc_key is None

    (tmp_path / "key").write_text("k" * 32 + "\n")
    environment.setenv("QT_RPC_KEY_FILE", str(tmp_path / "key"))
    settings = load_settings(AiServiceSettings)

    assert signer_of(settings.qt_rpc_key) is not None
    assert "k" * 32 in settings.secret_values()
    assert "k" * 32 not in repr(settings)


def test_a_key_that_could_be_guessed_stops_the_start_and_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("QT_RPC_KEY", "hunter2")

    with pytest.raises(ConfigurationError, match="QT_RPC_KEY is wrong: must have at least 32 bytes") as refusal:
        load_settings(AiServiceSettings)
    assert "hunter2" not in str(refusal.value)
