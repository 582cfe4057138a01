"""Names of the Redis streams.

On one server every event type has one stream. On a cluster it has one per partition, ``quantum:stream:{type}:{pN}``
with literal braces around ``pN``: Redis hashes only what stands in braces, so partition N of all types shares a slot
and can be read in one call, while different partitions lie on different masters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from shared.errors import InvalidInputError

_EVENT_STREAM = re.compile(r"quantum:stream:(?P<event_type>[^:{}]+)(?::\{p(?P<partition>\d+)\})?")


@dataclass(frozen=True, slots=True)
class StreamNames:
    """Where the events of an installation lie.

    Attributes:
        partitions: Streams per event type; 0 is one stream without a partition in its name.
    """

    partitions: int = 0

    def stream(self, event_type: str, key: str | None) -> str:
        """Return the stream of the events of ``event_type`` whose ordering key is ``key``.

        One key keeps to one partition whatever the event type; events without a key are ordered among their type.
        """
        if not self.partitions:
            return event_stream(event_type)
        return event_stream(event_type, crc32((key or event_type).encode()) % self.partitions)

    def streams(self, event_type: str) -> Sequence[str]:
        """Return every stream of ``event_type``."""
        if not self.partitions:
            return [event_stream(event_type)]
        return [event_stream(event_type, partition) for partition in range(self.partitions)]


def event_stream(event_type: str, partition: int | None = None) -> str:
    """Return the stream that carries ``event_type``, of one partition on a cluster."""
    return f"quantum:stream:{event_type}" + ("" if partition is None else f":{partition_tag(partition)}")


def partition_tag(partition: int) -> str:
    """Return the part of a key that puts it into the slot of ``partition``."""
    return f"{{p{partition}}}"


def event_type_of(stream: str) -> str:
    """Return the type of the events on ``stream``.

    Raises:
        InvalidInputError: It is no stream of events.
    """
    return _parsed(stream)["event_type"]


def partition_of(stream: str) -> int | None:
    """Return the partition that ``stream`` belongs to; None on one server.

    Raises:
        InvalidInputError: It is no stream of events.
    """
    partition = _parsed(stream)["partition"]
    return None if partition is None else int(partition)


def _parsed(stream: str) -> re.Match[str]:
    match = _EVENT_STREAM.fullmatch(stream)
    if match is None:
        raise InvalidInputError(f"{stream!r} is no stream of events; they are called quantum:stream:<event type>")
    return match


def dead_letter_stream(service: str) -> str:
    """Return the stream of what ``service`` could not handle."""
    return f"quantum:dlq:{service}"


def rpc_request_stream(service: str) -> str:
    """Return the stream from which the replicas of ``service`` share requests."""
    return f"quantum:rpc:request:{service}"


def rpc_response_stream(service: str, instance: str) -> str:
    """Return the reply inbox of one caller."""
    return f"quantum:rpc:response:{service}:{instance}"
