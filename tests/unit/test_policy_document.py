"""The stored policy: the shape of specification v2, read with tolerance, changed with care."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from shared.errors import DecodeError, InvalidInputError
from shared.policy.changes import announcement, apply_change, mode_named, require_field, revision_of
from shared.policy.document import BUILT_IN, FIELD_NAMES, first_document, read_document
from shared.trading.policy import DEFAULT_POLICIES, FALLBACK_POLICY_STATE, POLICY_UNITS, RiskMode, RiskPolicy
from tests.support.policy_stage import wish

NOW = datetime(2025, 12, 1, 22, 39, 8, tzinfo=UTC)


def stored(**values: Any) -> bytes:
    return orjson.dumps({**orjson.loads(first_document(NOW).to_bytes()), **values})


def test_the_json_has_the_shape_of_specification_v2() -> None:
    document = orjson.loads(first_document(NOW).to_bytes())
    assert {name: document[name] for name in document if name not in ("modes", "change")} == {
        "active_mode": "NORMAL",
        "last_updated": "2025-12-01T22:39:08Z",
        "updated_by": "system_init",
        "version": 1,
    }
    assert set(document["modes"]) == {"NORMAL", "DEFENSIVE", "AGGRESSIVE_SMALL_ACCOUNT"}
    assert document["modes"]["DEFENSIVE"] == {
        "max_leverage": 3,
        "max_risk_pct_per_trade": 0.0075,
        "max_daily_drawdown": 0.03,
        "max_positions": 10,
        "global_min_confidence": 0.6,
        "scaling_factor": 0.5,
        "position_size_cap": 500,
        "enable_rl": True,
        "enable_meta_strategy": True,
        "enable_pal": False,
        "enable_pba": True,
        "enable_clm": True,
        "enable_retraining": True,
        "enable_dynamic_tpsl": True,
    }


def test_every_field_has_a_unit_and_every_default_is_within_its_bounds() -> None:
    assert tuple(POLICY_UNITS) == FIELD_NAMES == tuple(field.name for field in fields(RiskPolicy))
    document = read_document(first_document(NOW).to_bytes())
    assert {mode: document.values(mode) for mode in RiskMode} == {
        mode: asdict(policy) for mode, policy in DEFAULT_POLICIES.items()
    }


def test_what_is_built_in_is_the_careful_mode() -> None:
    assert BUILT_IN.state(stale=True) == FALLBACK_POLICY_STATE


def test_a_document_of_version_2_can_be_read() -> None:
    document = read_document(
        stored(
            last_updated="2025-12-01T22:39:08.562897",
            modes={"NORMAL": {"max_leverage": 12.0, "max_positions": 9.0, "comment": "field of an older version"}},
            comment="another one",
        )
    )
    assert document.last_updated.tzinfo is not None
    state = document.state()
    assert (state.policy.max_leverage, state.policy.max_positions) == (12, 9)
    assert state.policy.max_daily_drawdown == DEFAULT_POLICIES[RiskMode.NORMAL].max_daily_drawdown
    defensive = document.model_copy(update={"active_mode": RiskMode.DEFENSIVE})
    assert defensive.state().policy == DEFAULT_POLICIES[RiskMode.DEFENSIVE]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"active_mode":',
        b"[" * 100_000,
        b'{"version": 1' + b"0" * 10_000 + b"}",
        stored(active_mode="WILD"),
        stored(version=0),
        stored(version=2**60),
        stored(modes={"NORMAL": {"max_leverage": 1000}}),
        stored(modes={"NORMAL": {"max_risk_pct_per_trade": 1}}),
        stored(modes={"NORMAL": {"scaling_factor": None}}),
        stored(comment="x" * 300_000),
    ],
    ids=lambda raw: raw[:20],
)
def test_what_cannot_be_a_policy_is_not_guessed_at(raw: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        read_document(raw)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_note_that_cannot_be_read_takes_no_limits_with_it() -> None:
    document = read_document(stored(change={"changed": "everything"}))
    assert document.change is None
    assert revision_of(document).reason == ""


def test_a_switch_with_a_change_tells_both_and_leaves_the_other_modes_alone() -> None:
    before = first_document(NOW)
    after = apply_change(
        before,
        wish(RiskMode.DEFENSIVE, of=RiskMode.DEFENSIVE, why="storm", max_positions=4, max_leverage=3),
        now=NOW,
    )
    assert after is not None
    assert after.values(RiskMode.NORMAL) == before.values(RiskMode.NORMAL)
    assert revision_of(after).as_json() == {
        "version": 2,
        "mode": "DEFENSIVE",
        "previous_mode": "NORMAL",
        "updated_by": "ann",
        "reason": "storm",
        "at": "2025-12-01T22:39:08+00:00",
        "changed": {"DEFENSIVE": {"max_positions": [10, 4]}},
    }
    assert announcement(after).changed_fields == ("active_mode", "max_positions")
    assert read_document(after.to_bytes()) == after


@pytest.mark.parametrize(
    ("name", "advice"),
    [("max_levrage", "did you mean max_leverage?"), ("leverage", "did you mean max_leverage?"), ("zzz", "fields: ")],
)
def test_a_field_that_is_none_comes_with_advice(name: str, advice: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        require_field(name)
    assert repr(name) in str(raised.value)
    assert advice in str(raised.value)


def test_modes_are_found_in_any_case_and_others_come_with_advice() -> None:
    assert mode_named(" defensive ") is RiskMode.DEFENSIVE
    with pytest.raises(InvalidInputError, match=r"'DEFENSIV' is no mode of the policy; did you mean DEFENSIVE\?"):
        mode_named("DEFENSIV")
    with pytest.raises(InvalidInputError, match="modes: NORMAL, DEFENSIVE, AGGRESSIVE_SMALL_ACCOUNT"):
        mode_named("YOLO")
