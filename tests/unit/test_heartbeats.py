"""When silence is an outage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.analytics_os_service.domain.heartbeats import Heartbeat, HeartbeatRule, HeartbeatTable, Recovery

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWN = "analytics-os-service"
RULE = HeartbeatRule(timeout=timedelta(seconds=15), grace=timedelta(seconds=30))


def table(*expected: str) -> HeartbeatTable:
    return HeartbeatTable(own_name=OWN, expected=expected or ("ai", "exec", OWN), rule=RULE, started=NOON)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def beat(watched: HeartbeatTable, service: str, seconds: float, *, sent: float | None = None) -> Recovery | None:
    moment = seconds if sent is None else sent
    return watched.beat(Heartbeat(service, "HEALTHY", at(moment), 1.0), at(seconds))


def own_beats(watched: HeartbeatTable, begin: int, end: int) -> None:
    """Hear ourselves every 5 s: without that, silence would mean that the bus is away."""
    for seconds in range(begin, end + 1, 5):
        beat(watched, OWN, seconds)


def silent(watched: HeartbeatTable, seconds: float) -> list[str]:
    return [outage.service for outage in watched.outages(at(seconds))]


def states(watched: HeartbeatTable, seconds: float) -> dict[str, str]:
    return {state.service: state.status for state in watched.states(at(seconds))}


def test_a_service_is_missing_only_after_the_whole_timeout() -> None:
    watched = table("ai", OWN)
    beat(watched, "ai", 40)
    own_beats(watched, 40, 55)

    assert silent(watched, 55) == []
    assert silent(watched, 55.1) == ["ai"]
    assert states(watched, 55.1) == {"ai": "CRITICAL", OWN: "HEALTHY"}


def test_an_outage_is_due_until_it_was_told_and_a_second_one_is_told_again() -> None:
    watched = table("ai", OWN)
    beat(watched, "ai", 40)
    own_beats(watched, 40, 60)
    assert silent(watched, 60) == silent(watched, 60) == ["ai"]

    watched.reported(watched.outages(at(60))[0])
    assert silent(watched, 61) == []
    recovery = beat(watched, "ai", 62)
    assert recovery == Recovery("ai", at(40), at(62))
    watched.recovered(recovery)
    assert beat(watched, "ai", 63) is None

    own_beats(watched, 65, 80)
    assert silent(watched, 80) == ["ai"]


def test_nobody_is_missing_in_the_grace_after_the_start_and_then_also_who_never_spoke() -> None:
    watched = table()
    own_beats(watched, 0, 30)

    assert silent(watched, 29.9) == []
    assert states(watched, 29.9)["ai"] == "UNKNOWN"
    assert silent(watched, 30) == ["ai", "exec"]


def test_while_nobody_is_heard_nobody_is_missing_and_afterwards_all_get_time_to_be_heard() -> None:
    watched = table()
    for service in ("ai", "exec", OWN):
        beat(watched, service, 40)

    assert silent(watched, 100) == []
    assert set(states(watched, 100).values()) == {"UNKNOWN"}
    own_beats(watched, 101, 116)
    assert silent(watched, 116) == []
    assert silent(watched, 117) == ["ai", "exec"]


def test_a_heartbeat_that_was_long_on_its_way_is_no_sign_of_life() -> None:
    watched = table("ai", OWN)
    beat(watched, "ai", 40)
    own_beats(watched, 40, 60)
    watched.reported(watched.outages(at(60))[0])

    assert beat(watched, "ai", 61, sent=42) is None
    assert beat(watched, "ai", 62) is not None


def test_a_clock_that_runs_ahead_keeps_no_dead_service_alive() -> None:
    watched = table("ai", OWN)
    beat(watched, "ai", 40, sent=4000)
    own_beats(watched, 40, 60)

    assert silent(watched, 60) == ["ai"]


def test_strangers_are_watched_once_they_were_heard() -> None:
    watched = table(OWN)
    beat(watched, "backend-api", 40)
    own_beats(watched, 40, 60)

    assert silent(watched, 60) == ["backend-api"]


def test_an_older_heartbeat_that_comes_late_changes_nothing() -> None:
    watched = table("ai", OWN)
    watched.beat(Heartbeat("ai", "DEGRADED", at(40), 1.0), at(40))
    beat(watched, "ai", 41, sent=35)

    assert states(watched, 41)["ai"] == "DEGRADED"
    own_beats(watched, 40, 55)
    assert silent(watched, 55) == []
