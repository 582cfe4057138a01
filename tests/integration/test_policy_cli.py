"""``quantum-trader policy`` and ``dlq`` as processes on a real Redis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infrastructure.supervisor.run_state import RunState, StateFile, own_start_time
from shared.bus.dead_letters import DeadLetterBox
from shared.clock import SystemClock
from shared.events.streams import dead_letter_stream, event_stream
from shared.policy.redis_store import CURRENT_KEY
from shared.redis_connection import RedisConnection
from tests.support.command_line import Finished, run_command

WHY = ("--reason", "test", "--by", "ann")


@dataclass
class Stage:
    """A shell whose environment names the Redis."""

    folder: Path
    redis_url: str
    connection: RedisConnection

    async def run(self, *arguments: str, exit_code: int = 0) -> Finished:
        finished = await run_command(*arguments, cwd=self.folder, environment={"REDIS_URL": self.redis_url})
        assert finished.exit_code == exit_code, finished.stderr
        if exit_code:
            assert len(finished.stderr.splitlines()) == 1, finished.stderr
        else:
            assert finished.stderr == ""
        return finished

    async def put_aside(self, service: str, origin: str, payload: bytes) -> str:
        """Write one dead letter and return its id."""
        fields = ("origin", origin, "entry_id", "1-1", "error", "DecodeError: bad\x1b[31m", "attempts", 1)
        (letter_id,) = await self.connection.execute(
            ("XADD", dead_letter_stream(service), "*", *fields, "failed_at", "now", "raw_payload", payload)
        )
        return str(letter_id.decode())


@pytest.fixture
async def stage(redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    connection = RedisConnection(redis_url, clock=SystemClock())
    yield Stage(tmp_path, redis_url, connection)
    await connection.stop()


async def test_values_modes_history_and_the_way_back(stage: Stage) -> None:
    shown = (await stage.run("policy", "show")).stdout
    assert "NORMAL is active; version 1" in shown
    assert all(text in shown for text in ("0.0075 (0.75 %)", "1,000 USD", "20x", "off"))

    told = (await stage.run("policy", "set", "max_leverage=5x", "max_daily_drawdown=4%", "enable_rl=off", *WHY)).stdout
    assert told.splitlines() == [
        "version 2 by ann: test",
        "  NORMAL.max_leverage 20x → 5x",
        "  NORMAL.max_daily_drawdown 0.05 (5 %) → 0.04 (4 %)",
        "  NORMAL.enable_rl on → off",
    ]
    told = (await stage.run("policy", "set", "position_size_cap=200", "--mode", "defensive", *WHY)).stdout
    assert "  DEFENSIVE.position_size_cap 500 USD → 200 USD" in told
    assert "mode NORMAL → DEFENSIVE" in (await stage.run("policy", "mode", "DEFENSIVE", *WHY)).stdout
    again = await stage.run("policy", "mode", "DEFENSIVE", *WHY)
    assert again.stdout == "nothing to change: version 4 is like that already\n"
    history = (await stage.run("policy", "history", "--limit", "3")).stdout
    assert all(text in history for text in ("mode NORMAL → DEFENSIVE", "NORMAL.max_leverage 20x → 5x", "ann", "test"))
    assert "system_init" not in history

    back = (await stage.run("policy", "rollback", "2", "--reason", "no", "--json")).json()
    assert (back["changed"], back["policy"]["version"], back["policy"]["active_mode"]) == (True, 5, "NORMAL")
    assert back["revision"]["updated_by"]  # the user of this shell
    assert back["policy"]["modes"]["DEFENSIVE"]["position_size_cap"] == 500
    afresh = (await stage.run("policy", "defaults", *WHY, "--json")).json()
    assert (afresh["policy"]["version"], afresh["policy"]["modes"]["NORMAL"]["max_leverage"]) == (6, 20)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("set", "max_levrage=5", *WHY), 2, ("'max_levrage'", "did you mean max_leverage?")),
        (("set", "max_leverage=5"), 2, ("--reason",)),
        (("mode", "YOLO", *WHY), 2, ("'YOLO'", "AGGRESSIVE_SMALL_ACCOUNT")),
        (("set", "max_risk_pct_per_trade=1", *WHY), 1, ("0.25", "0.01 is 1 %")),
        (("mode", "DEFENSIVE", "--expect-version", "7", *WHY), 1, ("version 1, not 7",)),
        (("rollback", "7", *WHY), 1, ("version 7", "1 to 1")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_is_wrong_is_said_in_one_line(
    stage: Stage, arguments: tuple[str, ...], exit_code: int, words: tuple[str, ...]
) -> None:
    finished = await stage.run("policy", *arguments, exit_code=exit_code)

    assert all(word in finished.stderr for word in words), finished.stderr
    assert finished.stdout == ""


async def test_a_damaged_policy_is_named_and_the_way_out_works(stage: Stage) -> None:
    await stage.run("policy", "mode", "DEFENSIVE", *WHY)
    await stage.connection.execute(("SET", CURRENT_KEY, b"{}"))

    shown = await stage.run("policy", "show", exit_code=1)
    assert "the stored policy cannot be used: active_mode" in shown.stderr
    assert "policy rollback VERSION" in shown.stderr
    assert "the stored policy cannot be used" in (await stage.run("policy", "mode", "NORMAL", *WHY, exit_code=1)).stderr
    assert (await stage.run("policy", "history", "--json")).json()["revisions"][0]["version"] == 2
    await stage.run("policy", "rollback", "2", *WHY)
    assert (await stage.run("policy", "show", "--json")).json()["active_mode"] == "DEFENSIVE"


async def test_where_there_is_no_redis(tmp_path: Path) -> None:
    command = ("policy", "show")
    nobody = await run_command("dlq", "list", cwd=tmp_path)
    assert nobody.exit_code == 3
    assert nobody.stderr.startswith("quantum-trader: no system is running from var and REDIS_URL is not set")

    for url, exit_code in (("redis://:canary-pw@127.0.0.1:1/0", 1), ("http://:canary-pw@127.0.0.1:1/0", 4)):
        finished = await run_command(*command, cwd=tmp_path, environment={"REDIS_URL": url})
        assert (finished.exit_code, finished.stdout, len(finished.stderr.splitlines())) == (exit_code, "", 1)
        assert "canary" not in finished.stderr
        assert "REDIS_URL" in finished.stderr


async def test_the_redis_of_the_running_system_comes_before_the_one_of_the_environment(stage: Stage) -> None:
    state = StateFile(stage.folder / "var")
    state.acquire()
    started = RunState(os.getpid(), own_start_time(), "run", "x", "ready", "now", urls={"redis": stage.redis_url})
    state.write(started)

    elsewhere = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    finished = await run_command("policy", "show", "--json", cwd=stage.folder, environment=elsewhere)

    state.release()
    assert finished.json()["version"] == 1


async def test_dead_letters_are_listed_shown_sent_again_and_dropped(stage: Stage) -> None:
    good = await stage.put_aside("ai-service", event_stream("risk.alert"), b'{"password": "canary-pw"}')
    bad = await stage.put_aside("exec-risk-service", "quantum:policy:current", b"\xff")

    listed = await stage.run("dlq", "list")
    assert all(text in listed.stdout for text in (good, bad, "risk.alert", "DecodeError: bad", "ai-service: 1"))
    assert listed.stdout.replace("\n", "").isprintable()
    rows = (await stage.run("dlq", "list", "--service", "ai-service", "--json")).json()
    assert rows["counts"] == {"ai-service": 1}
    assert [row["id"] for row in rows["dead_letters"]] == [good]

    # Services often give up on one event in one millisecond, so that their letters have one id.
    shown = await stage.run("dlq", "show", good, "--service", "ai-service")
    assert 'field payload: {"password": "***"}' in shown.stdout
    of_bad = (bad, "--service", "exec-risk-service")
    assert (await stage.run("dlq", "show", *of_bad, "--json")).json()["fields"] == {"payload": "\\xff"}

    refused = await stage.run("dlq", "redrive", "--all", exit_code=1)
    assert refused.stdout == "sent again: 1\n"
    assert f"{bad} of exec-risk-service stays" in refused.stderr
    (rows_there,) = await stage.connection.execute(("XRANGE", event_stream("risk.alert"), "-", "+"))
    assert rows_there[0][1] == [b"payload", b'{"password": "canary-pw"}']

    assert (await stage.run("dlq", "drop", *of_bad)).stdout == "dropped: 1\n"
    box = DeadLetterBox(stage.connection)
    assert sum((await box.counts()).values()) == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("redrive", "1-1", "--all"), 2, ("--all", "not both")),
        (("drop", "--all"), 2, ("--yes",)),
        (("redrive", "1-1", "--service", "ai-service"), 1, ("no dead letter 1-1 of ai-service", "dlq list")),
        (("list", "--service", "AI Service"), 1, ("'AI Service'", "exec-risk-service")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_is_wrong_about_dead_letters_is_said_in_one_line(
    stage: Stage, arguments: tuple[str, ...], exit_code: int, words: tuple[str, ...]
) -> None:
    finished = await stage.run("dlq", *arguments, exit_code=exit_code)

    assert all(word in finished.stderr for word in words), finished.stderr
    assert finished.stdout == ""


async def test_all_letters_of_a_service_are_dropped_after_a_yes(stage: Stage) -> None:
    for service in ("ai-service", "ai-service", "exec-risk-service"):
        await stage.put_aside(service, event_stream("risk.alert"), b"{}")

    finished = await stage.run("dlq", "drop", "--all", "--yes", "--service", "ai-service", "--json")

    assert finished.json() == {"dropped": 2}
    assert (await DeadLetterBox(stage.connection).counts())["exec-risk-service"] == 1
