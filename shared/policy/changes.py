"""What a person may do to the policy, and what each change leaves behind for the audit trail. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from shared.errors import InvalidInputError, PolicyConflictError
from shared.events.v3 import PolicyUpdatedPayload
from shared.policy.document import FIELD_NAMES, ChangeNote, PolicyDocument, PolicyValues, first_problem
from shared.telemetry.masking import mask_text
from shared.trading.policy import DEFAULT_POLICIES, POLICY_UNITS, PolicyUnit, RiskMode

_LONGEST_NAME = 100
_LONGEST_REASON = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """A wish: who wants what, and why. What it does not name stays as it is.

    Attributes:
        updated_by: Who wants it.
        reason: Why.
        active_mode: Mode to switch to.
        values: New values by mode and field, of any mode.
    """

    updated_by: str
    reason: str
    active_mode: RiskMode | None = None
    values: Mapping[RiskMode, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether nothing of what was stored before is left."""
        every_value = all(set(FIELD_NAMES) <= self.values.get(mode, {}).keys() for mode in RiskMode)
        return every_value and self.active_mode is not None


def rollback(old: PolicyDocument, *, updated_by: str, reason: str) -> PolicyChange:
    """Return the change that brings back mode and values of ``old``."""
    return PolicyChange(
        updated_by=updated_by,
        reason=reason,
        active_mode=old.active_mode,
        values={mode: old.values(mode) for mode in RiskMode},
    )


def defaults(mode: RiskMode | None, *, updated_by: str, reason: str) -> PolicyChange:
    """Return the change that gives ``mode`` its default values; None means every mode, and NORMAL becomes active."""
    modes = tuple(RiskMode) if mode is None else (mode,)
    return PolicyChange(
        updated_by=updated_by,
        reason=reason,
        active_mode=RiskMode.NORMAL if mode is None else None,
        values={mode: asdict(DEFAULT_POLICIES[mode]) for mode in modes},
    )


def apply_change(
    document: PolicyDocument, change: PolicyChange, *, now: datetime, always: bool = False
) -> PolicyDocument | None:
    """Return the next version; None when ``document`` is as the change wants it.

    Args:
        document: The version that the change builds on.
        change: What is wanted.
        now: When, aware UTC.
        always: Make a version even when nothing is different.

    Raises:
        InvalidInputError: An unknown field or a value out of range, or nobody or no reason is named.
    """
    updated_by = _told("updated_by", change.updated_by, _LONGEST_NAME)
    reason = _told("reason", change.reason, _LONGEST_REASON)
    modes, changed = dict(document.modes), {}
    for mode, wanted in change.values.items():
        before, after = document.values(mode), _checked(mode, document.values(mode), wanted)
        modes[mode.value] = {**modes[mode], **after}
        differing = {name: (before[name], after[name]) for name in FIELD_NAMES if before[name] != after[name]}
        if differing:
            changed[mode.value] = differing
    active = change.active_mode or document.active_mode
    if not (changed or always or active is not document.active_mode):
        return None
    return document.model_copy(
        update={
            "active_mode": active,
            "modes": modes,
            "last_updated": now,
            "updated_by": updated_by,
            "version": document.version + 1,
            "change": ChangeNote(previous_mode=document.active_mode.value, reason=reason, changed=changed),
        }
    )


def require_version(document: PolicyDocument, expected: int | None) -> None:
    """Refuse to change another version than the caller has seen; None means whatever is there.

    Raises:
        PolicyConflictError: It is another one.
    """
    if expected is not None and document.version != expected:
        raise PolicyConflictError(
            f"the policy has version {document.version}, not {expected}: read it again and decide again"
        )


@dataclass(frozen=True, slots=True)
class Revision:
    """One row of the audit trail.

    Attributes:
        version: The version that the change made.
        at: When, aware UTC.
        updated_by: Who.
        reason: Why.
        previous_mode: Active mode before; empty when it is not known.
        mode: Active mode since.
        changed: Mode -> field -> old and new value.
    """

    version: int
    at: datetime
    updated_by: str
    reason: str
    previous_mode: str
    mode: str
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]]

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        changed = {
            mode: {name: list(pair) for name, pair in names.items()} for mode, names in sorted(self.changed.items())
        }
        return {**asdict(self), "at": self.at.isoformat(), "changed": changed}


def revision_of(document: PolicyDocument) -> Revision:
    """Return the row that tells how ``document`` came to be."""
    note = document.change or ChangeNote()
    return Revision(
        version=document.version,
        at=document.last_updated,
        updated_by=document.updated_by,
        reason=note.reason,
        previous_mode=note.previous_mode,
        mode=document.active_mode.value,
        changed=note.changed,
    )


def announcement(document: PolicyDocument) -> PolicyUpdatedPayload:
    """Return the event that tells the change which made ``document``.

    Fields of the active mode go by their names, fields of others have their mode in front.
    """
    row = revision_of(document)
    fields = [
        name if mode == row.mode else f"{mode}.{name}" for mode, names in sorted(row.changed.items()) for name in names
    ]
    switched = ["active_mode"] if row.previous_mode != row.mode else []
    return PolicyUpdatedPayload(
        previous_mode=row.previous_mode or row.mode,
        new_mode=row.mode,
        updated_by=row.updated_by,
        changed_fields=(*switched, *fields),
        effective_timestamp=row.at,
        version=row.version,
    )


def mode_named(name: str) -> RiskMode:
    """Return the mode that is called ``name``, in any case.

    Raises:
        InvalidInputError: There is none.
    """
    try:
        return RiskMode(name.strip().upper())
    except ValueError:
        advice = suggestion(name.strip().upper(), RiskMode) or f"; modes: {', '.join(RiskMode)}"
        raise InvalidInputError(f"{name[:80]!r} is no mode of the policy{advice}") from None


def require_field(name: str) -> None:
    """Refuse what is no field of the policy.

    Raises:
        InvalidInputError: It is none.
    """
    if name not in FIELD_NAMES:
        advice = suggestion(name, FIELD_NAMES) or f"; fields: {', '.join(FIELD_NAMES)}"
        raise InvalidInputError(f"{name[:80]!r} is no field of the policy{advice}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return what ``word`` was probably meant to be, as the end of a sentence; empty when nothing is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _told(name: str, text: str, longest: int) -> str:
    """Return who or why as it may be kept and shown for years: one line, without secrets."""
    shown = " ".join(mask_text(text).split())
    if not shown:
        raise InvalidInputError(f"policy change refused: {name} is empty, and the audit trail must tell it")
    if len(shown) > longest:
        raise InvalidInputError(f"policy change refused: {name} has {len(shown)} characters, at most {longest}")
    return shown


def _checked(mode: RiskMode, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    for name in wanted:
        require_field(name)
    try:
        return PolicyValues.model_validate({**before, **wanted}, strict=True).model_dump()
    except ValidationError as error:
        field_name = str(error.errors(include_url=False, include_context=False)[0]["loc"][0])
        hint = " (a fraction: 0.01 is 1 %)" if POLICY_UNITS[field_name] is PolicyUnit.FRACTION else ""
        raise InvalidInputError(f"policy change refused: {mode}.{first_problem(error)}{hint}") from None
    except ValueError:  # Python refuses to look at integers of thousands of digits
        raise InvalidInputError(f"policy change refused: a value of {mode} is too long to be a number") from None
