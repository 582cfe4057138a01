"""``/api/v1/dead-letters``: what services could not handle, for who shows the token; payloads are shown masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, HTTPException, Query
from pydantic import Field

from services.analytics_os_service.api.access import BEARER, ControlAccess, Operator
from services.analytics_os_service.api.routes import WRONG_PARAMETER, Answer, Wish
from shared.bus.dead_letters import SERVICES, DeadLetter, DeadLetterBox

log = structlog.get_logger(__name__)

_NOT_FOUND = 404

Service = Annotated[str | None, Query(description="Only of this service.")]
Reason = Annotated[str, Field(max_length=500, description="Why; stands in the log.")]


class DeadLetterAnswer(Answer):
    """One event that a service gave up on."""

    service: str
    id: str = Field(description="Its id among the dead letters of the service.")
    event_type: str | None
    event_id: str | None
    trace_id: str | None
    error: str
    attempts: int
    failed_at: str


class DeadLetterDetails(DeadLetterAnswer):
    """One dead letter with all that is known of it."""

    origin: str = Field(description="Stream that it came from.")
    entry_id: str = Field(description="Its id there.")
    fields: Mapping[str, str] = Field(description="Raw fields, printable and without secrets.")


class DeadLettersAnswer(Answer):
    """Dead letters, the oldest of each service first."""

    counts: Mapping[str, int] = Field(description="How many each service has.")
    dead_letters: tuple[DeadLetterAnswer, ...]


class RedriveWish(Wish):
    """Which letters to send again."""

    service: str
    ids: tuple[str, ...] = Field(default=(), max_length=1000, strict=False)
    all: bool = Field(default=False, description="Every letter that the service has now.")
    reason: Reason = ""


class RefusedAnswer(Answer):
    """A letter that stays where it is."""

    id: str
    why: str


class RedriveAnswer(Answer):
    """What became of the letters."""

    sent: int
    refused: tuple[RefusedAnswer, ...]


class DropAnswer(Answer):
    """How many letters are gone."""

    dropped: int


def dead_letters_router(box: DeadLetterBox, access: ControlAccess) -> APIRouter:
    """Return the routes over ``box``."""
    router = APIRouter(
        prefix="/api/v1/dead-letters",
        tags=["dead letters"],
        route_class=access.route_class(),
        dependencies=[BEARER],
    )

    @router.get("")
    async def read_dead_letters(
        service: Service = None,
        limit: Annotated[int, Query(ge=1, le=500, description="At most so many of each service.")] = 100,
        after: Annotated[str | None, Query(description="Only behind this id, for the next page.")] = None,
    ) -> DeadLettersAnswer:
        """What services could not handle."""
        services = SERVICES if service is None else (service,)
        letters = [letter for name in services for letter in await box.page(name, limit=limit, after=after)]
        return DeadLettersAnswer(
            counts=await box.counts(services),
            dead_letters=tuple(DeadLetterAnswer(**letter.summary()) for letter in letters),
        )

    @router.get("/{service}/{letter_id}")
    async def read_dead_letter(service: str, letter_id: str) -> DeadLetterDetails:
        """One dead letter with its fields."""
        return DeadLetterDetails(**(await _existing(box, service, letter_id)).details())

    @router.post("/redrive")
    async def redrive(wish: RedriveWish, operator: Operator) -> RedriveAnswer:
        """Send letters again to the streams that they came from; handlers recognise what they have seen before."""
        if wish.all == bool(wish.ids):
            raise HTTPException(WRONG_PARAMETER, "name the ids, or say all: true; not both")
        log.info("dead_letters_redrive_asked", by=operator, reason=wish.reason, **_named(wish.service, wish.ids))
        if wish.all:
            redriven = await box.redrive_all(wish.service)
        else:
            redriven = await box.redrive_each([await _existing(box, wish.service, each) for each in wish.ids])
        refused = tuple(RefusedAnswer(id=letter.letter_id, why=why) for letter, why in redriven.refused)
        return RedriveAnswer(sent=redriven.sent, refused=refused)

    @router.delete("/{service}/{letter_id}")
    async def drop(service: str, letter_id: str, operator: Operator) -> DropAnswer:
        """Take one letter out for good."""
        letter = await _existing(box, service, letter_id)
        log.info("dead_letter_drop_asked", by=operator, **_named(service, (letter_id,)))
        return DropAnswer(dropped=await box.drop(service, [letter.letter_id]))

    return router


async def _existing(box: DeadLetterBox, service: str, letter_id: str) -> DeadLetter:
    letter = await box.get(service, letter_id)
    if letter is None:
        raise HTTPException(_NOT_FOUND, f"{service} has no dead letter {letter_id}")
    return letter


def _named(service: str, ids: tuple[str, ...]) -> dict[str, Any]:
    return {"service_of_letters": service, "ids": list(ids) or "all"}
