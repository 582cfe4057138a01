"""``/api/v1/policy``: the risk policy, read by everybody on this machine and changed by who shows the token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from services.analytics_os_service.api.access import BEARER, ControlAccess, Operator
from services.analytics_os_service.api.routes import BAD_REQUEST, Answer, OneLineRoute, Wish
from shared.errors import PolicyConflictError
from shared.policy.changes import PolicyChange, Revision, defaults, mode_named
from shared.policy.document import PolicyDocument
from shared.policy.store import PolicyEditor
from shared.trading.policy import RiskMode

_PREFIX = "/api/v1/policy"
_CONFLICT = 409
_PRECONDITION_REQUIRED = 428
_ETAG = re.compile(r'\A(?:W/)?"(\d{1,15})"\Z')

IfMatch = Annotated[
    str | None, Header(alias="If-Match", description='ETag of the version that was read: "7". Refused when it is old.')
]
Reason = Annotated[str, Field(min_length=1, max_length=500, description="Why; stands in the audit trail.")]
ExpectedVersion = Annotated[
    int | None, Field(ge=1, description="Version that was read, instead of If-Match; left out: whichever is stored.")
]


class PolicyAnswer(Answer):
    """The policy in force; fractions as fractions (0.01 is 1 %), sizes in USD."""

    active_mode: str
    version: int = Field(description="Counts up with each change; 0 for what is built in.")
    stale: bool = Field(description="Whether Redis cannot be asked and this is the last known policy.")
    last_updated: datetime
    updated_by: str
    reason: str = Field(description="Of the latest change.")
    modes: Mapping[str, Mapping[str, Any]] = Field(description="Values of every mode.")


class RevisionAnswer(Answer):
    """One change."""

    version: int = Field(description="The version that it made.")
    at: datetime
    updated_by: str
    reason: str
    previous_mode: str
    mode: str = Field(description="Active mode since.")
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]] = Field(description="Mode, field, old and new value.")


class HistoryAnswer(Answer):
    """Changes, the newest first."""

    revisions: tuple[RevisionAnswer, ...]


class PolicyWish(Wish):
    """New values; what is left out stays as it is."""

    reason: Reason
    active_mode: str | None = Field(default=None, description="Mode to switch to.")
    modes: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict, description="New values by mode and field.")
    expected_version: ExpectedVersion = None


class ModeWish(Wish):
    """Another mode."""

    mode: str
    reason: Reason
    expected_version: ExpectedVersion = None


class RollbackWish(Wish):
    """An earlier version again."""

    to_version: int = Field(ge=1)
    reason: Reason
    expected_version: ExpectedVersion = None


class DefaultsWish(Wish):
    """The values that came with the software."""

    mode: str | None = Field(default=None, description="Left out: every mode, and NORMAL becomes active.")
    reason: Reason
    expected_version: ExpectedVersion = None


def policy_router(policy: PolicyEditor, access: ControlAccess) -> APIRouter:
    """Return the routes over ``policy``."""
    router = APIRouter(tags=["policy"])
    router.include_router(_reads(policy, access))
    router.include_router(_changes(policy, access))
    return router


def _reads(policy: PolicyEditor, access: ControlAccess) -> APIRouter:
    router = (
        APIRouter(prefix=_PREFIX, route_class=OneLineRoute)
        if access.reads_are_open
        else APIRouter(prefix=_PREFIX, route_class=access.route_class(), dependencies=[BEARER])
    )

    @router.get("")
    async def read_policy(response: Response) -> PolicyAnswer:
        """The policy that this service holds: at most half a second old while Redis is there."""
        state, document = policy.current(), policy.document()
        response.headers["ETag"] = f'"{document.version}"'
        return _policy(document, stale=state.stale)

    @router.get("/history")
    async def read_history(
        limit: Annotated[int, Query(ge=1, le=500, description="At most so many.")] = 50,
        before: Annotated[int | None, Query(ge=1, le=2**53, description="Only versions lower than this.")] = None,
    ) -> HistoryAnswer:
        """The audit trail: who changed what, when, and why."""
        rows = await policy.history(limit=limit, before=before)
        return HistoryAnswer(revisions=tuple(map(_revision, rows)))

    return router


def _changes(policy: PolicyEditor, access: ControlAccess) -> APIRouter:
    router = APIRouter(prefix=_PREFIX, route_class=access.route_class(), dependencies=[BEARER])

    async def change(wish: PolicyChange, expected: int | None) -> Response:
        try:
            return _changed(await policy.change(wish, expected_version=expected))
        except PolicyConflictError as error:
            return await _conflict(policy, error)

    @router.put("", response_model=PolicyAnswer)
    async def put_policy(wish: PolicyWish, operator: Operator, if_match: IfMatch = None) -> Response:
        """Change values of any mode, the active mode, or both; needs the version that was read."""
        expected = _expected(wish.expected_version, if_match)
        if expected is None:
            raise HTTPException(
                _PRECONDITION_REQUIRED,
                "say which version you have read: If-Match with the ETag of GET, or expected_version",
            )
        return await change(
            PolicyChange(
                updated_by=operator,
                reason=wish.reason,
                active_mode=None if wish.active_mode is None else mode_named(wish.active_mode),
                values={mode_named(mode): values for mode, values in wish.modes.items()},
            ),
            expected,
        )

    @router.post("/mode", response_model=PolicyAnswer)
    async def switch_mode(wish: ModeWish, operator: Operator, if_match: IfMatch = None) -> Response:
        """Switch to another mode, whatever the version, unless one is named."""
        wanted = PolicyChange(updated_by=operator, reason=wish.reason, active_mode=mode_named(wish.mode))
        return await change(wanted, _expected(wish.expected_version, if_match))

    @router.post("/defaults", response_model=PolicyAnswer)
    async def restore_defaults(wish: DefaultsWish, operator: Operator, if_match: IfMatch = None) -> Response:
        """Bring back the values that came with the software."""
        mode = None if wish.mode is None else mode_named(wish.mode)
        wanted = defaults(mode, updated_by=operator, reason=wish.reason)
        return await change(wanted, _expected(wish.expected_version, if_match))

    @router.post("/rollback", response_model=PolicyAnswer)
    async def roll_back(wish: RollbackWish, operator: Operator, if_match: IfMatch = None) -> Response:
        """Make a new version with mode and values of an earlier one."""
        expected = _expected(wish.expected_version, if_match)
        try:
            document = await policy.rollback(
                wish.to_version, updated_by=operator, reason=wish.reason, expected_version=expected
            )
        except PolicyConflictError as error:
            return await _conflict(policy, error)
        return _changed(document)

    return router


def _expected(version: int | None, if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return version
    match = _ETAG.match(if_match.strip())
    if match is None:
        raise HTTPException(BAD_REQUEST, 'If-Match must be the ETag that GET answered, for example "7"')
    if version is not None and version != int(match[1]):
        raise HTTPException(BAD_REQUEST, "If-Match and expected_version name different versions")
    return int(match[1])


async def _conflict(policy: PolicyEditor, error: PolicyConflictError) -> Response:
    current = await policy.refresh()
    return JSONResponse({"detail": str(error), "current_version": current.version}, status_code=_CONFLICT)


def _changed(document: PolicyDocument) -> Response:
    answer = _policy(document, stale=False)
    return JSONResponse(answer.model_dump(mode="json"), headers={"ETag": f'"{document.version}"'})


def _policy(document: PolicyDocument, *, stale: bool) -> PolicyAnswer:
    return PolicyAnswer(
        active_mode=document.active_mode.value,
        version=document.version,
        stale=stale,
        last_updated=document.last_updated,
        updated_by=document.updated_by,
        reason=document.change.reason if document.change else "",
        modes={mode.value: document.values(mode) for mode in RiskMode},
    )


def _revision(row: Revision) -> RevisionAnswer:
    return RevisionAnswer.model_validate(row.as_json())
