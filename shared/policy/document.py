"""The stored policy: one JSON document in the shape of specification v2, and how a change makes the next one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from shared.errors import DecodeError, InvalidInputError
from shared.trading.policy import DEFAULT_POLICIES, PolicyState, RiskMode, RiskPolicy

#: Bounds of the numbers; a policy outside them is a typing error, not a wish.
_BOUNDS: Mapping[str, dict[str, Any]] = {
    "max_leverage": {"ge": 1, "le": 125},
    "max_risk_pct_per_trade": {"gt": 0, "le": 1},
    "max_daily_drawdown": {"gt": 0, "le": 1},
    "max_positions": {"ge": 0, "le": 1000},
    "global_min_confidence": {"ge": 0, "le": 1},
    "scaling_factor": {"ge": 0, "le": 10},
    "position_size_cap": {"gt": 0},
}


def _values_model() -> type[BaseModel]:
    columns: dict[str, Any] = {}
    for field in fields(RiskPolicy):
        kind = {"int": int, "bool": bool}.get(str(field.type), float)
        columns[field.name] = (kind, Field(**_BOUNDS.get(field.name, {})))
    return create_model(
        "PolicyValues", __config__=ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False), **columns
    )


_Values = _values_model()


class PolicyDocument(BaseModel):
    """What ``quantum:policy:current`` holds."""

    model_config = ConfigDict(frozen=True)

    active_mode: RiskMode
    modes: dict[RiskMode, dict[str, Any]]
    last_updated: datetime
    updated_by: str
    version: int = Field(ge=1)

    @field_validator("last_updated")
    @classmethod
    def _in_utc(cls, moment: datetime) -> datetime:
        # Version 2 wrote times without an offset.
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def state(self, *, stale: bool = False) -> PolicyState:
        """Return what services read."""
        values = self.modes[self.active_mode]
        return PolicyState(self.active_mode, RiskPolicy(**values), self.version, stale)


def first_document(now: datetime) -> PolicyDocument:
    """Return version 1: the default values, mode NORMAL."""
    modes = {mode: asdict(policy) for mode, policy in DEFAULT_POLICIES.items()}
    return PolicyDocument(
        active_mode=RiskMode.NORMAL, modes=modes, last_updated=now, updated_by="system_init", version=1
    )


def read_document(raw: bytes | str) -> PolicyDocument:
    """Return the document in ``raw``.

    Fields and modes that it lacks get their defaults, and fields that we do not know are left out: another version
    of the software may have written it.

    Raises:
        DecodeError: It is no policy, or a value is out of range.
    """
    try:
        document = PolicyDocument.model_validate_json(raw)
        modes = {mode: _completed(mode, document.modes.get(mode, {})) for mode in RiskMode}
    except ValidationError as error:
        raise DecodeError(f"the stored policy cannot be used: {_first_problem(error)}", raw=raw) from None
    return document.model_copy(update={"modes": modes})


def _completed(mode: RiskMode, stored: Mapping[str, Any]) -> dict[str, Any]:
    values = asdict(DEFAULT_POLICIES[mode])
    values.update({name: value for name, value in stored.items() if name in values})
    return _Values.model_validate(values).model_dump()


def changed_document(
    document: PolicyDocument,
    *,
    now: datetime,
    updated_by: str,
    reason: str,
    mode: RiskMode | None,
    changes: Mapping[str, Any] | None,
) -> tuple[PolicyDocument, tuple[str, ...]]:
    """Return the next version and the names of what changed; ``changes`` go to the mode that is active afterwards.

    Raises:
        InvalidInputError: An unknown field or a value out of range, or nobody or no reason is named.
    """
    for name, text in (("updated_by", updated_by), ("reason", reason)):
        if not text.strip():
            raise InvalidInputError(f"policy change refused: {name} is empty, and the audit trail must tell it")
    target = mode or document.active_mode
    values = document.modes[target]
    try:
        wanted = _Values.model_validate({**values, **(changes or {})}).model_dump()
    except ValidationError as error:
        raise InvalidInputError(f"policy change refused: {_first_problem(error)}") from None
    changed = [name for name in wanted if wanted[name] != values[name]]
    if target is not document.active_mode:
        changed.insert(0, "active_mode")
    following = PolicyDocument(
        active_mode=target,
        modes={**document.modes, target: wanted},
        last_updated=now,
        updated_by=updated_by,
        version=document.version + 1,
    )
    return following, tuple(changed)


def audit_row(
    before: PolicyDocument, document: PolicyDocument, *, changed: tuple[str, ...], reason: str
) -> dict[str, Any]:
    """Return who changed what, when and why, as JSON values; of each field the old and the new value."""
    old, values = before.modes[document.active_mode], document.modes[document.active_mode]
    return {
        "version": document.version,
        "mode": document.active_mode.value,
        "previous_mode": before.active_mode.value,
        "updated_by": document.updated_by,
        "reason": reason,
        "at": document.last_updated.isoformat(),
        "changed": {name: [old[name], values[name]] for name in changed if name in values},
    }


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"]) or "document"
    return f"{name}={problem['input']!r}: {problem['msg']}"[:300]
