"""The policy under arbitrary bytes, and under arbitrary changes against a model that is as plain as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shared.clock import ManualClock
from shared.errors import DecodeError, InvalidInputError, PolicyConflictError
from shared.policy.changes import defaults
from shared.policy.document import FIELD_NAMES, first_document, read_document
from shared.policy.memory_store import MemoryPolicyStore, SharedPolicy
from shared.trading.policy import DEFAULT_POLICIES, RiskMode
from tests.support.policy_stage import wish

NOW = datetime(2025, 5, 4, tzinfo=UTC)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from((*FIELD_NAMES, "max_levrage", ""))
#: What people write, right and wrong.
values = st.one_of(
    st.integers(-5, 200), st.floats(), st.booleans(), st.none(), st.text(max_size=5), st.just(10**400), json_values
)
modes = st.sampled_from(RiskMode)


def read_or_refused(raw: bytes) -> None:
    """Read ``raw``: what comes out is a policy that can be written and read again, or a DecodeError of one line."""
    try:
        document = read_document(raw)
    except DecodeError as error:
        require_one_line(error)
        return
    assert read_document(document.to_bytes()) == document


def require_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_policy_or_refused(raw: bytes) -> None:
    read_or_refused(raw)


@given(json_values)
def test_any_json_is_a_policy_or_refused(value: Any) -> None:
    read_or_refused(orjson.dumps(value))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "active_mode": modes.map(str) | json_values,
            "modes": st.dictionaries(modes.map(str) | st.text(max_size=5), st.dictionaries(names, json_values)),
            "last_updated": st.datetimes().map(datetime.isoformat) | json_values,
            "updated_by": json_values,
            "version": st.integers(-1, 2**60) | json_values,
            "change": json_values,
            "something_new": json_values,
        },
    )
)
def test_what_looks_like_a_policy_is_one_or_refused(changes: Mapping[str, Any]) -> None:
    read_or_refused(orjson.dumps({**orjson.loads(first_document(NOW).to_bytes()), **changes}))


class PolicyMachine(RuleBasedStateMachine):
    """Random changes by two stores on one policy, beside plain dicts that say what must come out."""

    @initialize()
    def begin(self) -> None:
        self.clock = ManualClock(NOW)
        shared = SharedPolicy()
        self.stores = [MemoryPolicyStore(self.clock, shared) for _ in range(2)]
        for store in self.stores:
            asyncio.run(store.start())
        # What each version was: the active mode, and the values by mode.
        self.versions: list[tuple[RiskMode, dict[RiskMode, dict[str, Any]]]] = [
            (RiskMode.NORMAL, {mode: asdict(policy) for mode, policy in DEFAULT_POLICIES.items()})
        ]

    def expect(self, mode: RiskMode, by_mode: dict[RiskMode, dict[str, Any]]) -> None:
        if (mode, by_mode) != self.versions[-1]:
            self.versions.append((mode, by_mode))

    @rule(who=st.integers(0, 1), seconds=st.integers(0, 100))
    def time_passes_and_somebody_looks(self, who: int, seconds: int) -> None:
        self.clock.advance(seconds)
        asyncio.run(self.stores[who].refresh())

    @rule(who=st.integers(0, 1), mode=modes)
    def switch(self, who: int, mode: RiskMode) -> None:
        asyncio.run(self.stores[who].change(wish(mode)))
        self.expect(mode, self.versions[-1][1])

    @rule(who=st.integers(0, 1), of=modes, wanted=st.dictionaries(names, values, min_size=1, max_size=3))
    def change_values(self, who: int, of: RiskMode, wanted: dict[str, Any]) -> None:
        active, by_mode = self.versions[-1]
        try:
            asyncio.run(self.stores[who].change(wish(of=of, **wanted)))
        except InvalidInputError as error:
            require_one_line(error)
            return
        assert all(_plausible(name, value) for name, value in wanted.items())
        self.expect(active, {**by_mode, of: {**by_mode[of], **wanted}})

    @rule(who=st.integers(0, 1), back=st.integers(0, 5))
    def roll_back(self, who: int, back: int) -> None:
        version = max(1, len(self.versions) - back)
        asyncio.run(self.stores[who].rollback(version, updated_by="ann", reason="test"))
        self.expect(*self.versions[version - 1])

    @rule(who=st.integers(0, 1), mode=modes | st.none())
    def restore_defaults(self, who: int, mode: RiskMode | None) -> None:
        asyncio.run(self.stores[who].change(defaults(mode, updated_by="ann", reason="test")))
        active, by_mode = self.versions[-1]
        if mode is None:
            self.expect(*self.versions[0])
        else:
            self.expect(active, {**by_mode, mode: asdict(DEFAULT_POLICIES[mode])})

    @rule(who=st.integers(0, 1), mode=modes, behind=st.integers(1, 3))
    def change_what_has_changed(self, who: int, mode: RiskMode, behind: int) -> None:
        try:
            asyncio.run(self.stores[who].change(wish(mode), expected_version=len(self.versions) - behind))
        except PolicyConflictError:
            return
        raise AssertionError("a change on top of an old version was accepted")

    @invariant()
    def the_store_holds_what_the_model_says(self) -> None:
        if not hasattr(self, "versions"):
            return
        store = self.stores[0]
        asyncio.run(store.refresh())
        active, by_mode = self.versions[-1]
        state, document = store.current(), store.document()
        assert (state.mode, state.version, asdict(state.policy)) == (active, len(self.versions), by_mode[active])
        assert {mode: document.values(mode) for mode in RiskMode} == by_mode
        rows = asyncio.run(store.history(limit=1000))
        assert [row.version for row in rows] == list(range(len(self.versions), 0, -1))
        assert all(newer.at - older.at >= timedelta() for newer, older in pairwise(rows))


def _plausible(name: str, value: Any) -> bool:
    """Tell whether ``value`` has the type of the field; the bounds are not repeated here."""
    if name.startswith("enable_"):
        return isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool)


TestPolicyMachine = PolicyMachine.TestCase
