"""The ports under RPC: what a caller and a responder need from whatever carries their messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from shared.rpc.messages import Fields


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as the transport hands it over.

    Attributes:
        entry_id: Given by the transport.
        fields: Raw bytes by field name.
    """

    entry_id: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes.

    Attributes:
        service: Service of the caller.
        instance: Process of the caller.
        fields: Raw bytes of the answer.
        stored_as: Request id under which every replica finds the answer again; None when nobody needs to.
    """

    service: str
    instance: str
    fields: Fields
    stored_as: str | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The request is this entry's to run."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Another entry with the same request id is being run; whoever runs it will answer."""


@dataclass(frozen=True, slots=True)
class Done:
    """The request was run before.

    Attributes:
        fields: Raw bytes of its answer.
    """

    fields: Fields


Claim: TypeAlias = Granted | Busy | Done


class CallerChannel(Protocol):
    """One caller's way out and its one inbox. Every method raises TransientError when the carrier is away."""

    async def open(self) -> None:
        """Begin to listen."""
        ...

    async def send(self, service: str, fields: Fields) -> None:
        """Put a request where the replicas of ``service`` share them; after an error it may or may not be there."""
        ...

    async def receive(self) -> Sequence[Fields]:
        """Wait for answers; none when the wait was long enough."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class ResponderChannel(Protocol):
    """One replica's share of the requests. Every method raises TransientError when the carrier is away."""

    async def open(self) -> Sequence[Delivery]:
        """Begin to take part; return what this instance took in an earlier life and did not settle."""
        ...

    async def receive(self) -> Sequence[Delivery]:
        """Wait for requests, new or left by a dead replica; none when the wait was long enough."""
        ...

    async def claim(self, request_id: str, entry_id: str) -> Claim:
        """Make sure that at most one entry with this request id runs among all replicas.

        The same entry is granted again: a replica that died in the middle is followed by a second try.
        """
        ...

    async def settle(self, delivery: Delivery, reply: Reply | None) -> None:
        """Send the answer, if there is one, and mark the request as dealt with: both or neither."""
        ...

    async def hold(self, entry_ids: Sequence[str]) -> None:
        """Say that these are still being worked on, so that nobody else takes them."""
        ...

    async def close(self) -> None:
        """Stop taking part; what is not settled stays for another replica."""
        ...


class RpcTransport(Protocol):
    """Makes channels."""

    def caller(self, service: str, instance: str) -> CallerChannel:
        """Return the channel of one calling process."""
        ...

    def responder(self, service: str, instance: str) -> ResponderChannel:
        """Return the channel of one answering process."""
        ...
