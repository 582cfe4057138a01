"""One Redis key that is changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import WatchError

from shared.errors import ConnectionLostError, TransientError
from shared.redis_connection import RedisConnection, redis_errors

#: Others may change the key between our read and our write so many times in a row.
_TRIES = 20

#: Makes the next value out of the stored one; None leaves it.
Decide = Callable[[bytes | None], Awaitable[bytes | None]]


class RedisCell:
    """The key and its value.

    A change is WATCH, GET, MULTI, SET, EXEC. It needs no script, so that the ACL of a service can do without EVAL, and
    one key only, so that it works on a cluster.
    """

    def __init__(self, connection: RedisConnection, key: str) -> None:
        self._connection = connection
        self._key = key

    async def read(self) -> bytes | None:
        """Return the stored value; None when there is none.

        Raises:
            TransientError: The server cannot be reached, or refuses.
        """
        (value,) = await self._connection.execute(("GET", self._key))
        return None if value is None else bytes(value)

    async def change(self, decide: Decide) -> bytes | None:
        """Store what ``decide`` makes of the value, and ask it again when somebody else wrote meanwhile.

        Returns:
            What is stored now.

        Raises:
            ConnectionLostError: The server cannot be reached; the message says when the value may have changed.
            TransientError: The server refuses, or others change the value all the time; nothing was changed.
        """
        # redis-py: a watch belongs to one connection, and on the shared one anybody's EXEC would end it.
        written: bytes | None = None
        pipe: Any  # redis-py types its answers as unions that one would have to take apart
        async with self._connection.client.pipeline(transaction=True) as pipe:
            for _ in range(_TRIES):
                try:
                    with redis_errors():
                        await pipe.watch(self._key)
                        stored: bytes | None = await pipe.get(self._key)
                    if written is not None and stored == written:
                        return written  # only the answer was lost
                    following = await decide(stored)
                    if following is None:
                        return stored
                    written = following
                    with redis_errors():
                        pipe.multi()
                        pipe.set(self._key, following)
                        await pipe.execute()
                    return following
                except ConnectionLostError as error:
                    if written is None:
                        raise
                    raise ConnectionLostError(f"{error}; the change may have been made or not, look again") from error
                except TransientError as error:
                    # redis-py says the same when it lost the connection, also right after EXEC was sent.
                    if not isinstance(error.__cause__, WatchError):
                        raise
        raise TransientError(f"{self._key} was changed by others {_TRIES} times in a row; try again")
