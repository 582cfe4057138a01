"""The stored policy: one JSON document in the shape of specification v2, with a note of its latest change. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from shared.errors import DecodeError
from shared.trading.policy import DEFAULT_POLICIES, PolicyState, RiskMode, RiskPolicy

#: What is larger is no policy; the usual one has 1.5 KiB.
MAX_DOCUMENT_BYTES = 256 * 1024
#: Bounds of the numbers; a policy outside them is a typing error, not a wish. The two fractions end far below 1, so
#: that who writes 1 and means one percent is refused.
_BOUNDS: Mapping[str, dict[str, Any]] = {
    "max_leverage": {"ge": 1, "le": 125},
    "max_risk_pct_per_trade": {"gt": 0, "le": 0.25},
    "max_daily_drawdown": {"gt": 0, "le": 0.5},
    "max_positions": {"ge": 0, "le": 1000},
    "global_min_confidence": {"ge": 0, "le": 1},
    "scaling_factor": {"ge": 0, "le": 10},
    "position_size_cap": {"gt": 0, "le": 1e12},
}


def _values_model() -> type[BaseModel]:
    columns: dict[str, Any] = {}
    for field in fields(RiskPolicy):
        kind = {"int": int, "bool": bool}.get(str(field.type), float)
        columns[field.name] = (kind, Field(**_BOUNDS.get(field.name, {})))
    return create_model(
        "PolicyValues", __config__=ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False), **columns
    )


#: The fields of one mode, with their types and bounds.
PolicyValues = _values_model()
FIELD_NAMES = tuple(PolicyValues.model_fields)


class ChangeNote(BaseModel):
    """What the latest change did; who and when stand in the document itself.

    Attributes:
        previous_mode: Active mode before it.
        reason: Why it was made.
        changed: Mode -> field -> old and new value.
    """

    model_config = ConfigDict(frozen=True)

    previous_mode: str = ""
    reason: str = ""
    changed: dict[str, dict[str, tuple[Any, Any]]] = Field(default_factory=dict)


class PolicyDocument(BaseModel):
    """What ``quantum:policy:current`` holds.

    Fields and modes that this version of the software does not know are carried along, so that its changes do not
    take away what a newer version has written.

    Attributes:
        active_mode: Mode in force.
        modes: Values by mode; every known mode has every known field.
        last_updated: When the latest change was made, aware UTC.
        updated_by: Who made it.
        version: Counts up with each change; 0 only for what is built in.
        change: What it did.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    active_mode: RiskMode
    modes: dict[str, dict[str, Any]]
    last_updated: datetime
    updated_by: str
    version: int = Field(ge=0, le=2**53)
    change: ChangeNote | None = None

    @field_validator("last_updated")
    @classmethod
    def _in_utc(cls, moment: datetime) -> datetime:
        # Version 2 wrote times without an offset.
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @field_validator("change", mode="wrap")
    @classmethod
    def _if_it_can_be_read(cls, note: Any, read: Any) -> Any:
        # It is told to people only: limits that can be read hold, whatever stands beside them.
        try:
            return read(note)
        except ValidationError:
            return None

    def values(self, mode: RiskMode) -> dict[str, Any]:
        """Return the values of ``mode`` by field."""
        stored = self.modes[mode]
        return {name: stored[name] for name in FIELD_NAMES}

    def state(self, *, stale: bool = False) -> PolicyState:
        """Return what services read."""
        return PolicyState(self.active_mode, RiskPolicy(**self.values(self.active_mode)), self.version, stale)

    def to_bytes(self) -> bytes:
        """Return the JSON that ``read_document`` reads."""
        return self.model_dump_json().encode()


def first_document(now: datetime) -> PolicyDocument:
    """Return version 1: the default values, mode NORMAL."""
    return _defaults(RiskMode.NORMAL, version=1, now=now, updated_by="system_init")


def read_document(raw: bytes) -> PolicyDocument:
    """Return the document in ``raw``; fields and modes that it lacks get their defaults.

    Raises:
        DecodeError: It is no policy, or a value is out of range.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise DecodeError(f"the stored policy cannot be used: it has {len(raw)} bytes, at most {MAX_DOCUMENT_BYTES}")
    try:
        document = PolicyDocument.model_validate_json(raw)
        known = {mode.value: _completed(mode, document.modes.get(mode, {})) for mode in RiskMode}
    except ValidationError as error:
        raise DecodeError(f"the stored policy cannot be used: {first_problem(error)}", raw=raw) from None
    if document.version < 1:
        raise DecodeError(f"the stored policy cannot be used: version={document.version}, must be 1 or more", raw=raw)
    return document.model_copy(update={"modes": {**document.modes, **known}})


def first_problem(error: ValidationError) -> str:
    """Return the first thing that is wrong as one line: which field, what it was, what it should be."""
    problem = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    if not name:
        return problem["msg"]
    return f"{name}={_shown(problem['input'])}: {problem['msg']}"


def _completed(mode: RiskMode, stored: Mapping[str, Any]) -> dict[str, Any]:
    values = asdict(DEFAULT_POLICIES[mode])
    values.update({name: value for name, value in stored.items() if name in values})
    return {**stored, **PolicyValues.model_validate(values).model_dump()}


def _shown(value: object) -> str:
    try:
        return repr(value)[:80]
    except ValueError:  # Python refuses to write integers of thousands of digits
        return f"a {type(value).__name__} too long to show"


def _defaults(active: RiskMode, *, version: int, now: datetime, updated_by: str) -> PolicyDocument:
    modes = {mode.value: asdict(policy) for mode, policy in DEFAULT_POLICIES.items()}
    return PolicyDocument(active_mode=active, modes=modes, last_updated=now, updated_by=updated_by, version=version)


#: Holds when nothing is known: the careful mode.
BUILT_IN = _defaults(RiskMode.DEFENSIVE, version=0, now=datetime(2025, 1, 1, tzinfo=UTC), updated_by="built in")
