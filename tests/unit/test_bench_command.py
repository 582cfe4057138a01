"""``quantum-trader bench``: what can be chosen, and what is said about a wrong choice."""

from __future__ import annotations

import pytest

from infrastructure.bench.benchmarks import BENCHMARKS, selected
from infrastructure.cli.main import run
from shared.errors import ConfigurationError

#: The names are in the architecture; other programs ask for them.
NAMES = {
    "bus_e2e_events_per_s",
    "bus_publish_events_per_s",
    "bus_100k_load",
    "publish_p99_ms",
    "disk_buffer_p99_ms",
    "rpc_p50_us",
    "rpc_calls_per_s",
    "policy_cached_read_us",
    "risk_decision_us",
    "log_lines_per_s",
}


def test_every_row_has_the_name_that_the_architecture_gives_it() -> None:
    assert set(BENCHMARKS) >= NAMES
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())


def test_every_target_against_a_rival_names_one_that_takes_part() -> None:
    for benchmark in BENCHMARKS.values():
        rivals = {rival.name for rival in benchmark.rivals}
        assert {target.rival for target in benchmark.targets if target.rival} <= rivals
        assert benchmark.targets, benchmark.name


def test_all_are_chosen_when_nothing_is_named() -> None:
    assert [benchmark.name for benchmark in selected(None)] == list(BENCHMARKS)


def test_those_named_are_chosen_once_each() -> None:
    chosen = selected(" rpc_p50_us , log_lines_per_s,rpc_p50_us,")

    assert [benchmark.name for benchmark in chosen] == ["rpc_p50_us", "log_lines_per_s"]


@pytest.mark.parametrize("only", ["nothing_like_it", "rpc_p50_us,nothing_like_it", "", " , "])
def test_a_name_that_does_not_exist_is_refused_with_those_that_do(only: str) -> None:
    with pytest.raises(ConfigurationError, match="there are: bus_e2e_events_per_s, bus_publish"):
        selected(only)


@pytest.mark.parametrize("option", ["--only", "--profile"])
def test_a_wrong_name_is_one_line_and_a_usage_error(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code = run(["bench", option, "nothing_like_it", "--json"])

    out, err = capsys.readouterr()
    assert exit_code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "no benchmark is called nothing_like_it; there are: " in err
