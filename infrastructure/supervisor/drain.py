"""Whether everything that was published has been handled, told from Redis's own books."""

from __future__ import annotations

from collections.abc import Mapping

from shared.events.registry import EVENTS
from shared.events.streams import event_stream
from shared.redis_connection import RedisConnection, redis_errors

EntryId = tuple[int, int]


def entry_id(text: bytes | str) -> EntryId:
    """Return a stream entry's id as numbers, which compare in order of time."""
    milliseconds, _, count = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(milliseconds), int(count or 0)


class StreamBooks:
    """Reads how far streams and consumer groups are.

    Every method raises ConnectionLostError when Redis cannot be reached.
    """

    def __init__(self, connection: RedisConnection) -> None:
        self._redis = connection.client

    async def heads(self) -> dict[str, EntryId]:
        """Return the newest entry of every event stream that holds any."""
        newest = {}
        with redis_errors():
            for stream in map(event_stream, EVENTS):
                if await self._redis.exists(stream):
                    info = await self._redis.xinfo_stream(stream)
                    newest[stream] = entry_id(info["last-generated-id"])
        return newest

    async def has_handled(self, group: str, heads: Mapping[str, EntryId], *, every_stream: bool) -> bool:
        """Tell whether ``group`` has taken and settled every entry up to ``heads``.

        Args:
            group: Name of a service.
            heads: What ``heads`` returned at the moment in question.
            every_stream: Whether a stream without that group counts as not handled; else as not its business.
        """
        with redis_errors():
            for stream, head in heads.items():
                if head == (0, 0):
                    continue
                taken = await self._last_delivered(stream, group)
                if taken is None:
                    if every_stream:
                        return False
                elif taken < head or await self._has_pending(stream, group, head):
                    return False
        return True

    async def _last_delivered(self, stream: str, group: str) -> EntryId | None:
        for info in await self._redis.xinfo_groups(stream):
            name = info["name"]
            if (name.decode() if isinstance(name, bytes) else name) == group:
                return entry_id(info["last-delivered-id"])
        return None

    async def _has_pending(self, stream: str, group: str, head: EntryId) -> bool:
        """Tell whether an entry up to ``head`` was delivered and not settled."""
        summary = await self._redis.xpending(stream, group)
        return bool(summary["pending"]) and entry_id(summary["min"]) <= head
