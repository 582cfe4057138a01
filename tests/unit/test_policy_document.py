"""The stored policy: the shape of specification v2, read with tolerance, changed with care."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from shared.errors import DecodeError
from shared.policy.document import audit_row, changed_document, first_document, read_document
from shared.trading.policy import DEFAULT_POLICIES, RiskMode

NOW = datetime(2025, 12, 1, 22, 39, 8, tzinfo=UTC)


def stored(**values: object) -> bytes:
    return orjson.dumps({**orjson.loads(first_document(NOW).model_dump_json()), **values})


def test_the_json_has_the_shape_of_specification_v2() -> None:
    document = orjson.loads(first_document(NOW).model_dump_json())
    assert {name: document[name] for name in document if name != "modes"} == {
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


def test_a_document_of_version_2_can_be_read() -> None:
    document = read_document(
        stored(
            last_updated="2025-12-01T22:39:08.562897",
            modes={"NORMAL": {"max_leverage": 12.0, "comment": "field of an older version"}},
            comment="another one",
        )
    )
    assert document.last_updated.tzinfo is not None
    state = document.state()
    assert state.policy.max_leverage == 12
    assert state.policy.max_positions == DEFAULT_POLICIES[RiskMode.NORMAL].max_positions
    assert (
        document.model_copy(update={"active_mode": RiskMode.DEFENSIVE}).state().policy
        == (DEFAULT_POLICIES[RiskMode.DEFENSIVE])
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        stored(active_mode="WILD"),
        stored(version=0),
        stored(modes={"NORMAL": {"max_leverage": 1000}}),
        stored(modes={"NORMAL": {"scaling_factor": None}}),
    ],
)
def test_what_cannot_be_a_policy_is_not_guessed_at(raw: bytes) -> None:
    with pytest.raises(DecodeError) as raised:
        read_document(raw)
    assert raised.value.raw == raw
    assert "\n" not in str(raised.value)


def test_a_switch_with_a_change_tells_both_and_leaves_the_other_modes_alone() -> None:
    before = first_document(NOW)
    after, changed = changed_document(
        before,
        now=NOW,
        updated_by="ann",
        reason="storm",
        mode=RiskMode.DEFENSIVE,
        changes={"max_positions": 4, "max_leverage": 3},
    )
    assert changed == ("active_mode", "max_positions")
    assert after.modes[RiskMode.NORMAL] == before.modes[RiskMode.NORMAL]
    assert audit_row(before, after, changed=changed, reason="storm") == {
        "version": 2,
        "mode": "DEFENSIVE",
        "previous_mode": "NORMAL",
        "updated_by": "ann",
        "reason": "storm",
        "at": "2025-12-01T22:39:08+00:00",
        "changed": {"max_positions": [10, 4]},
    }
