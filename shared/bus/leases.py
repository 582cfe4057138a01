"""Who reads which partition: one lease per partition and service, spread evenly over the instances that live.

A lease is a key that expires. Its holder renews it well before, and stops working on the partition by its own monotonic
clock when it could not: a process that was frozen finds its lease gone before it does anything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shared.clock import Clock
from shared.events.streams import partition_tag
from shared.redis_connection import RedisConnection


@dataclass(frozen=True, slots=True)
class Share:
    """What a round of taking came to.

    Attributes:
        taken: Partitions that are this instance's from now on.
        surplus: Partitions above this instance's share, to be released when nothing of them is in hand.
    """

    taken: tuple[int, ...]
    surplus: tuple[int, ...]


class PartitionLeases:
    """The leases of one instance of a service."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        service: str,
        instance: str,
        clock: Clock,
        lease_seconds: float,
    ) -> None:
        """Prepare, without connecting.

        Args:
            connection: To the cluster.
            service: Whose instances share the partitions.
            instance: Who this one is.
            clock: Wall clock.
            lease_seconds: A lease lives this long without being renewed.
        """
        self._connection = connection
        self._service = service
        self._instance = instance
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._valid_until: dict[int, float] = {}

    def owns(self, partition: int) -> bool:
        """Tell, without asking anybody, whether the partition is this instance's for certain."""
        return self._clock.monotonic() < self._valid_until.get(partition, 0.0)

    async def renew(self) -> list[int]:
        """Renew what is held; return the partitions that were lost, whose holder must let go of them before ``take``.

        Raises:
            ConnectionLostError: Redis cannot be reached; what is held lapses by itself.
        """
        lost = [partition for partition in self._valid_until if not self.owns(partition)]
        for partition in lost:
            del self._valid_until[partition]
        held = list(self._valid_until)
        began = self._clock.monotonic()
        milliseconds = int(self._lease_seconds * 1000)
        # The second command can meet a key that has just become another's; it only lengthens that one's lease.
        commands = [
            command
            for partition in held
            for command in (("GET", self._key(partition)), ("PEXPIRE", self._key(partition), milliseconds))
        ]
        owners = (await self._connection.execute(*commands))[::2] if commands else []
        for partition, owner in zip(held, owners, strict=True):
            if owner == self._instance.encode():
                self._valid_until[partition] = began + self._lease_seconds
            else:
                del self._valid_until[partition]
                lost.append(partition)
        return lost

    async def take(self, partitions: Sequence[int]) -> Share:
        """Take what is free up to this instance's share of ``partitions``.

        Raises:
            ConnectionLostError: Redis cannot be reached.
        """
        share = math.ceil(len(partitions) / await self._count_members())
        taken = []
        for partition in partitions:
            if len(self._valid_until) >= share:
                break
            if partition not in self._valid_until and await self._take(partition):
                taken.append(partition)
        return Share(tuple(taken), tuple(sorted(self._valid_until)[share:]))

    async def release(self, partition: int) -> None:
        """Let another instance take the partition at once."""
        left = self._valid_until.pop(partition, 0.0) - self._clock.monotonic()
        # With little time left the key could be another's by the time it is deleted; then it just runs out.
        if left > self._lease_seconds / 3:
            await self._connection.execute(("DEL", self._key(partition)))

    async def leave(self) -> None:
        """Release everything and take part no longer."""
        for partition in list(self._valid_until):
            await self.release(partition)
        await self._connection.execute(("ZREM", self._members_key, self._instance))

    async def _count_members(self) -> int:
        now_ms = int(self._clock.now().timestamp() * 1000)
        *_, members = await self._connection.execute(
            ("ZADD", self._members_key, now_ms + int(self._lease_seconds * 1000), self._instance),
            ("ZREMRANGEBYSCORE", self._members_key, "-inf", now_ms),
            ("ZCARD", self._members_key),
        )
        return max(1, int(members))

    async def _take(self, partition: int) -> bool:
        began = self._clock.monotonic()
        milliseconds = int(self._lease_seconds * 1000)
        (answer,) = await self._connection.execute(
            ("SET", self._key(partition), self._instance, "NX", "PX", milliseconds)
        )
        if answer is None and not await self._is_left_by_an_earlier_life(partition, milliseconds):
            return False
        self._valid_until[partition] = began + self._lease_seconds
        return True

    async def _is_left_by_an_earlier_life(self, partition: int, milliseconds: int) -> bool:
        """A restarted process finds its own name on the lease, and need not wait for it to run out."""
        key = self._key(partition)
        (owner,) = await self._connection.execute(("GET", key))
        if owner != self._instance.encode():
            return False
        await self._connection.execute(("PEXPIRE", key, milliseconds))
        return True

    @property
    def _members_key(self) -> str:
        return f"quantum:members:{self._service}"

    def _key(self, partition: int) -> str:
        return f"quantum:lease:{self._service}:{partition_tag(partition)}"
