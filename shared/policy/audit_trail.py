"""The audit trail of the policy in Redis: a stream that is only ever appended to, one entry per version."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import structlog

from shared.errors import DecodeError, InvalidInputError, TransientError
from shared.policy.changes import Revision, revision_of
from shared.policy.document import PolicyDocument, read_document
from shared.redis_connection import RedisConnection
from shared.redis_wire import ErrorReply, Reply

log = structlog.get_logger(__name__)

AUDIT_KEY = "quantum:policy:audit"
#: Versions that are kept; at several changes a day these are years.
_LENGTH = 10_000
#: How far back a version is looked for among the entries whose ids are not their versions.
_NEAR = 100
_NOT_ABOVE_THE_LAST = "ERR The ID specified in XADD is equal or smaller"
_HIGHEST_COUNT = 2**64 - 1


class RedisAuditTrail:
    """Entries ``<version>-0`` with the fields ``change`` (who, when, what, why) and ``policy`` (the whole document).

    The id makes recording idempotent: a version that is there is refused by Redis itself. On a cluster the trail and
    the policy lie on different masters, and a failover can make the policy forget versions that the trail has; then
    what comes next is added behind the last entry, under an id that is no version.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def record(self, document: PolicyDocument) -> None:
        """Make sure that the trail tells how ``document`` came to be.

        Raises:
            TransientError: Redis cannot be reached or refuses.
        """
        wanted = revision_of(document)
        if await self._append(f"{document.version}-0", document):
            return
        if wanted in _revisions(await self._at(document.version)):
            return
        last = await self._newest(_NEAR)
        if wanted in _revisions(last):
            return
        version, _, count = _id(last[0]).partition("-")
        log.warning("policy_audit_out_of_order", version=document.version, last_entry=_id(last[0]))
        if not await self._append(f"{version}-{int(count) + 1}", document):
            raise TransientError(f"{AUDIT_KEY} was written to by others at the same moment; try again")

    async def page(self, *, limit: int, before: int | None) -> Sequence[Revision]:
        """Return up to ``limit`` rows, the newest first; with ``before`` only of older versions.

        Raises:
            TransientError: Redis cannot be reached or refuses.
        """
        end = "+" if before is None else f"({before}-0"
        (entries,) = await self._connection.execute(("XREVRANGE", AUDIT_KEY, end, "-", "COUNT", limit))
        return _revisions(entries)

    async def document(self, version: int) -> PolicyDocument:
        """Return the policy as it was at ``version``.

        Raises:
            InvalidInputError: The trail does not hold it.
            TransientError: Redis cannot be reached or refuses.
        """
        newest = await self._newest(_NEAR)
        # The newest first: of two with one number, a failover has undone the other.
        for document in map(_document, [*newest, *await self._at(version)]):
            if document is not None and document.version == version:
                return document
        (oldest,) = await self._connection.execute(("XRANGE", AUDIT_KEY, "-", "+", "COUNT", 1))
        known = f"which holds {_version(oldest[0])} to {_version(newest[0])}" if newest else "which is empty"
        raise InvalidInputError(f"version {version} is not in the audit trail, {known}")

    async def newest(self) -> PolicyDocument | None:
        """Return the newest policy that can be read; None when there is none.

        Raises:
            TransientError: Redis cannot be reached or refuses.
        """
        readable = (document for document in map(_document, await self._newest(_NEAR)) if document is not None)
        return next(readable, None)

    async def _append(self, entry_id: str, document: PolicyDocument) -> bool:
        """Return False when the trail is at ``entry_id`` or further."""
        change = orjson.dumps(revision_of(document).as_json())
        (reply,) = await self._connection.execute(
            ("XADD", AUDIT_KEY, "MAXLEN", "~", _LENGTH, entry_id, "change", change, "policy", document.to_bytes()),
            raise_on_error=False,
        )
        if isinstance(reply, ErrorReply):
            if str(reply).startswith(_NOT_ABOVE_THE_LAST):
                return False
            raise TransientError(f"the audit trail {AUDIT_KEY} cannot be written: {reply}") from reply
        return True

    async def _at(self, version: int) -> list[Reply]:
        (entries,) = await self._connection.execute(
            ("XRANGE", AUDIT_KEY, f"{version}-0", f"{version}-{_HIGHEST_COUNT}")
        )
        return list(entries)

    async def _newest(self, count: int) -> list[Reply]:
        (entries,) = await self._connection.execute(("XREVRANGE", AUDIT_KEY, "+", "-", "COUNT", count))
        return list(entries)


def _revisions(entries: Sequence[Reply]) -> list[Revision]:
    return [revision_of(document) for document in map(_document, entries) if document is not None]


def _document(entry: Reply) -> PolicyDocument | None:
    fields = dict(zip(entry[1][::2], entry[1][1::2], strict=True))
    try:
        return read_document(fields.get(b"policy", b""))
    except DecodeError as error:
        log.error("policy_audit_entry_unreadable", entry_id=_id(entry), error=str(error))
        return None


def _id(entry: Reply) -> str:
    return str(entry[0].decode())


def _version(entry: Reply) -> str:
    return _id(entry).partition("-")[0]
