"""Dead letters: what a service could not handle, kept with its raw bytes; listed, looked at, sent again, dropped."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from shared.bus.redis_group import fields_of
from shared.errors import ConnectionLostError, InvalidInputError
from shared.events.registry import AI, ANALYTICS_OS, EXEC_RISK
from shared.events.streams import dead_letter_stream, event_type_of
from shared.redis_connection import RedisConnection
from shared.redis_wire import Reply
from shared.telemetry.masking import mask_text

log = structlog.get_logger(__name__)

#: The services that have a box.
SERVICES = (AI, EXEC_RISK, ANALYTICS_OS)
_PAGE = 200
_SERVICE_NAME = re.compile(r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")
_ENTRY_ID = re.compile(r"\A\d{1,20}-\d{1,20}\Z")
_RAW = b"raw_"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that a service gave up on, as it was when it failed.

    Attributes:
        service: Who gave up.
        letter_id: Its id in the box of that service.
        origin: Stream that it came from.
        entry_id: Its id there.
        error: Why it failed, as the service wrote it.
        attempts: How often it was tried.
        failed_at: When it was given up, ISO 8601.
        fields: The raw fields of the entry.
    """

    service: str
    letter_id: str
    origin: str
    entry_id: str
    error: str
    attempts: int
    failed_at: str
    fields: Mapping[bytes, bytes]

    @property
    def event_type(self) -> str | None:
        """Type of the events on the stream that it came from; None when that is no stream of events."""
        try:
            return event_type_of(self.origin)
        except InvalidInputError:
            return None

    def summary(self) -> dict[str, Any]:
        """Return what a list shows, fit for a terminal: printable, without secrets."""
        metadata = _json_object(self.fields.get(b"metadata", b""))
        return {
            "service": self.service,
            "id": self.letter_id,
            "event_type": self.event_type,
            "event_id": _text_or_none(metadata.get("event_id")),
            "trace_id": _text_or_none(metadata.get("trace_id")),
            "error": mask_text(self.error),
            "attempts": self.attempts,
            "failed_at": mask_text(self.failed_at),
        }

    def details(self) -> dict[str, Any]:
        """Return the summary, where it came from, and its fields, fit for a terminal."""
        shown = {_text(name): _text(value) for name, value in self.fields.items()}
        return {**self.summary(), "origin": mask_text(self.origin), "entry_id": self.entry_id, "fields": shown}


@dataclass(slots=True)
class Redriven:
    """What became of many letters.

    Attributes:
        sent: Letters that are on their streams again.
        refused: Letters that stay, and why.
    """

    sent: int = 0
    refused: list[tuple[DeadLetter, str]] = field(default_factory=list)


def joined(parts: Sequence[Redriven]) -> Redriven:
    """Return what became of the letters of all ``parts``."""
    return Redriven(sum(part.sent for part in parts), [one for part in parts for one in part.refused])


class DeadLetterBox:
    """The dead letters of all services. Every coroutine raises TransientError when Redis is away or refuses."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def counts(self, services: Sequence[str] = SERVICES) -> dict[str, int]:
        """Return how many letters each service has."""
        replies = await self._connection.execute(*(("XLEN", _box(service)) for service in services))
        return dict(zip(services, map(int, replies), strict=True))

    async def page(self, service: str, *, limit: int, after: str | None = None) -> list[DeadLetter]:
        """Return up to ``limit`` letters, the oldest first; with ``after`` only those behind that id.

        Raises:
            InvalidInputError: There can be no such service or id.
        """
        begin = "-" if after is None else f"({_checked_id(after)}"
        (rows,) = await self._connection.execute(("XRANGE", _box(service), begin, "+", "COUNT", limit))
        return [_letter(service, row) for row in rows]

    async def get(self, service: str, letter_id: str) -> DeadLetter | None:
        """Return one letter; None when there is none of that id.

        Raises:
            InvalidInputError: There can be no such service or id.
        """
        letter_id = _checked_id(letter_id)
        (rows,) = await self._connection.execute(("XRANGE", _box(service), letter_id, letter_id))
        return _letter(service, rows[0]) if rows else None

    async def redrive(self, letter: DeadLetter) -> str:
        """Send the event again to the stream that it came from, byte for byte, and take it out of the box.

        Every service that listens to that stream gets it, under the event id that it always had. A crash in between
        leaves it in both places; sent once more, it is a repeated delivery, which handlers recognise.

        Returns:
            Its new id on the stream.

        Raises:
            InvalidInputError: It did not come from a stream of events, or holds nothing to send.
        """
        # A letter says itself where it wants to go: only to a stream of events, or whoever can write to a box could
        # write anywhere.
        event_type_of(letter.origin)
        if not letter.fields:
            raise InvalidInputError(f"dead letter {letter.letter_id} of {letter.service} holds no event; drop it")
        flat = [part for pair in letter.fields.items() for part in pair]
        # Not one transaction: when Redis refuses the first half there, it carries out the second all the same.
        (entry_id,) = await self._connection.execute(("XADD", letter.origin, "*", *flat))
        try:
            await self._connection.execute(("XDEL", _box(letter.service), letter.letter_id))
        except ConnectionLostError as error:
            name = f"dead letter {letter.letter_id} of {letter.service}"
            raise ConnectionLostError(f"{name} was sent again, and may be in the box still: {error}") from error
        log.info("dead_letter_redriven", service_of_letters=letter.service, letter_id=letter.letter_id)
        return str(entry_id.decode())

    async def redrive_each(self, letters: Sequence[DeadLetter]) -> Redriven:
        """Send ``letters`` again, one after the other; what cannot be sent stays and holds up no other."""
        redriven = Redriven()
        for letter in letters:
            try:
                await self.redrive(letter)
                redriven.sent += 1
            except InvalidInputError as error:
                redriven.refused.append((letter, str(error)))
        return redriven

    async def redrive_all(self, service: str) -> Redriven:
        """Send every letter of ``service`` again; what comes back to the box meanwhile is left there."""
        return joined([await self.redrive_each(page) async for page in self._present(service)])

    async def drop(self, service: str, letter_ids: Sequence[str]) -> int:
        """Take letters out of the box for good; return how many there were.

        Raises:
            InvalidInputError: There can be no such service or id.
        """
        if not letter_ids:
            return 0
        ids = [_checked_id(letter_id) for letter_id in letter_ids]
        (dropped,) = await self._connection.execute(("XDEL", _box(service), *ids))
        log.info("dead_letters_dropped", service_of_letters=service, count=int(dropped))
        return int(dropped)

    async def drop_all(self, service: str) -> int:
        """Drop every letter that ``service`` has now; return how many there were."""
        return sum(
            [await self.drop(service, [letter.letter_id for letter in page]) async for page in self._present(service)]
        )

    async def _present(self, service: str) -> AsyncIterator[list[DeadLetter]]:
        """Yield the letters that are there now, page by page, and none that comes later."""
        (newest,) = await self._connection.execute(("XREVRANGE", _box(service), "+", "-", "COUNT", 1))
        end = newest[0][0].decode() if newest else "0-0"
        begin = "-"
        while True:
            (rows,) = await self._connection.execute(("XRANGE", _box(service), begin, end, "COUNT", _PAGE))
            if not rows:
                return
            yield [_letter(service, row) for row in rows]
            begin = f"({rows[-1][0].decode()}"


def _box(service: str) -> str:
    if not _SERVICE_NAME.match(service):
        raise InvalidInputError(f"{mask_text(service)[:80]!r} is no name of a service; services: {', '.join(SERVICES)}")
    return dead_letter_stream(service)


def _checked_id(letter_id: str) -> str:
    if not _ENTRY_ID.match(letter_id):
        raise InvalidInputError(
            f"{mask_text(letter_id)[:80]!r} is no id of a dead letter; ids look like 1746360000000-0"
        )
    return letter_id


def _letter(service: str, row: Reply) -> DeadLetter:
    fields = fields_of(row[1])
    attempts = _decoded(fields.get(b"attempts", b""))
    return DeadLetter(
        service=service,
        letter_id=row[0].decode(),
        origin=_decoded(fields.get(b"origin", b"")),
        entry_id=_decoded(fields.get(b"entry_id", b"")),
        error=_decoded(fields.get(b"error", b"")),
        attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 0,
        failed_at=_decoded(fields.get(b"failed_at", b"")),
        fields={name.removeprefix(_RAW): value for name, value in fields.items() if name.startswith(_RAW)},
    )


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _text(raw: bytes) -> str:
    return mask_text(_decoded(raw))


def _text_or_none(value: object) -> str | None:
    return mask_text(value) if isinstance(value, str) else None
