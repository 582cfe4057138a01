"""What a run writes down: its folder, its state file, its ports, and the last words of its programs."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infrastructure.supervisor.environment import configured, read_environment
from infrastructure.supervisor.last_words import last_words
from infrastructure.supervisor.ports import choose_ports, free_ports
from infrastructure.supervisor.run_directory import RUNS_KEPT, create_run_directory, new_run_id
from infrastructure.supervisor.run_state import RunState, StateFile, own_start_time, with_program
from shared.clock import ManualClock
from shared.errors import ConfigurationError, NotRunningError, QuantumTraderError
from shared.ids import SeededIds

NOON = datetime(2025, 5, 4, 12, tzinfo=UTC)


def state(**changes: object) -> RunState:
    written = RunState(
        pid=os.getpid(),
        pid_started=own_start_time(),
        run_id="20250504T120000-6c1f5f0e",
        run_dir="var/runs/x",
        phase="ready",
        started_at=NOON.isoformat(),
    )
    return replace(written, **changes)  # type: ignore[arg-type]  # test data


def test_other_commands_find_the_running_system(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.acquire()

    file.write(with_program(state(), "ai-service", {"state": "READY", "restarts": 0}))

    found = StateFile(tmp_path).require()
    assert found.programs == {"ai-service": {"state": "READY", "restarts": 0}}
    assert (tmp_path / "run" / "state.json").stat().st_mode & 0o077 == 0
    file.release()


def test_nothing_runs_after_the_release(tmp_path: Path) -> None:
    file = StateFile(tmp_path)
    file.acquire()
    file.write(state())
    file.release()

    with pytest.raises(NotRunningError, match="no system is running"):
        file.require()


@pytest.mark.parametrize("changes", [{"pid_started": 1.0}, {"pid": 2**22 + 1}])
def test_a_state_file_left_by_a_dead_process_is_not_believed(tmp_path: Path, changes: dict[str, object]) -> None:
    file = StateFile(tmp_path)
    file.acquire()
    file.write(state(**changes))

    assert file.read() is None
    file.release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unknown": 1}'])
def test_a_damaged_state_file_counts_as_not_running(tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text(content)

    assert StateFile(tmp_path).read() is None


def test_a_second_supervisor_is_kept_out_and_told_who_runs(tmp_path: Path) -> None:
    first = StateFile(tmp_path)
    first.acquire()
    first.write(state())

    with pytest.raises(QuantumTraderError, match=r"already running .*20250504T120000-6c1f5f0e.*--state-dir") as caught:
        StateFile(tmp_path).acquire()

    assert "\n" not in str(caught.value)
    first.release()
    second = StateFile(tmp_path)
    second.acquire()
    second.release()


def test_only_the_newest_runs_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    clock, ids = ManualClock(NOON), SeededIds(1)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    names = []
    for _ in range(RUNS_KEPT + 2):
        names.append(new_run_id(clock, ids))
        create_run_directory(tmp_path, names[-1])
        clock.advance(1.0)

    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [*names[2:], "mine"]


def test_a_state_folder_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="cannot be written"):
        create_run_directory(tmp_path / "file", "20250504T120000-6c1f5f0e")


def test_a_busy_port_is_named_with_what_to_do() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        with pytest.raises(ConfigurationError, match=f"port {port} for ai-service is busy; .*QT_AI_PORT"):
            choose_ports(0, {"QT_AI_PORT": str(port)})


def test_ports_come_from_the_base_unless_the_environment_names_them() -> None:
    exchange, *_ = free_ports(1)

    ports = choose_ports(0, {"QT_EXCHANGE_PORT": str(exchange)})

    assert ports.exchange == exchange
    assert len({ports.ai, ports.exec_risk, ports.analytics, ports.exchange, ports.exchange_admin}) == 5


def test_one_port_for_two_processes_is_refused() -> None:
    [port] = free_ports(1)

    with pytest.raises(ConfigurationError, match=f"port {port} is wanted twice, also for analytics-os-service"):
        choose_ports(0, {"QT_AI_PORT": str(port), "QT_ANALYTICS_PORT": str(port)})


@pytest.mark.parametrize("value", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"QT_AI_PORT=.* is no port number"):
        choose_ports(0, {"QT_AI_PORT": value})


def test_the_environment_wins_over_the_file_and_empty_counts_as_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("QT_TEST_ONE=file\nQT_TEST_TWO=file\nQT_TEST_THREE=\n")
    monkeypatch.setenv("QT_TEST_ONE", "environment")

    values = read_environment(tmp_path / ".env")

    assert (values["QT_TEST_ONE"], values["QT_TEST_TWO"]) == ("environment", "file")
    assert "QT_TEST_THREE" not in values


def test_a_value_can_come_from_a_file_but_not_from_two_places(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://127.0.0.1:1/0\n")

    assert configured("REDIS_URL", {}) is None
    assert configured("REDIS_URL", {"REDIS_URL_FILE": str(secret)}) == "redis://127.0.0.1:1/0"
    with pytest.raises(ConfigurationError, match="both set"):
        configured("REDIS_URL", {"REDIS_URL_FILE": str(secret), "REDIS_URL": "redis://127.0.0.1:2/0"})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        configured("REDIS_URL", {"REDIS_URL_FILE": str(tmp_path / "missing")})


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", ""),
        ("one\n\ntwo\n", "two"),
        ('{"event": "start_failed", "error": "PORT is wrong"}\n{"event": "bye"}\n', "PORT is wrong"),
        ('{"event": "a", "error": "old"}\n' + '{"event": "fine"}\n' * 30, '{"event": "fine"}'),
        ("ok\nTraceback\n  File\nValueError: 7\n", "ValueError: 7"),
    ],
)
def test_last_words_are_the_error_or_else_the_last_line(tmp_path: Path, log: str, said: str) -> None:
    path = tmp_path / "x.log"
    path.write_text(log)

    assert last_words(path) == said


def test_a_program_without_a_log_said_nothing(tmp_path: Path) -> None:
    assert last_words(tmp_path / "missing.log") == ""
