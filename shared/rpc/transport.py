"""The ports under RPC: what callers and servers need from whatever carries their messages.

Every method that waits for something raises TransientError when the carrier is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from shared.errors import TransientError
from shared.rpc.messages import CallKey, Fields


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as the transport hands it over.

    Attributes:
        entry_id: Given by the transport.
        fields: Raw bytes by field name.
        taken_over: Whether it was in the hands of somebody before, who may have begun to run it.
    """

    entry_id: str
    fields: Fields
    taken_over: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Where an answer goes.

    Attributes:
        service: Service of the caller.
        instance: Process of the caller.
        fields: Raw bytes of the answer.
    """

    service: str
    instance: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class StoredResult:
    """An answer that every replica of the service shall find again.

    Attributes:
        key: Call that it answers.
        fields: Raw bytes of the answer.
    """

    key: CallKey
    fields: Fields


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of one delivery.

    Attributes:
        entry_id: Delivery that is dealt with.
        reply: Answer that is sent.
        result: Answer that is stored.
    """

    entry_id: str
    reply: Reply | None = None
    result: StoredResult | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The call is this delivery's to run."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Another delivery of the same call is being run; whoever runs it will answer."""


@dataclass(frozen=True, slots=True)
class Done:
    """The call was run before.

    Attributes:
        fingerprint: Tells what was asked.
        fields: Raw bytes of its answer.
    """

    fingerprint: bytes
    fields: Fields


Claim: TypeAlias = Granted | Busy | Done


class CallerChannel(Protocol):
    """One caller's way out and its one inbox."""

    async def open(self) -> None:
        """Begin to listen."""
        ...

    async def send(self, service: str, *, requests: Sequence[Fields], cancellations: Sequence[Fields]) -> None:
        """Put requests where the replicas of ``service`` share them, and cancellations where each of them sees them.

        After an error any of them may or may not be there.
        """
        ...

    async def receive(self) -> Sequence[Fields]:
        """Wait for answers; none when the wait was long enough."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class ResponderChannel(Protocol):
    """One replica's share of the requests.

    Attributes:
        patience_seconds: A request that nobody held for this long belongs to a dead replica.
    """

    @property
    def patience_seconds(self) -> float: ...

    async def open(self) -> Sequence[Delivery]:
        """Begin to take part; return what this instance took in an earlier life and did not settle."""
        ...

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Delivery]:
        """Take at most ``limit`` new requests, waiting for the first; none when the wait was long enough."""
        ...

    async def take_over(self, limit: int) -> Sequence[Delivery]:
        """Return at most ``limit`` requests that dead replicas left.

        None so soon after an outage that the living had no time to hold theirs.
        """
        ...

    async def hold(self, entry_ids: Sequence[str]) -> None:
        """Say that these are still in hand, so that nobody takes them over."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[TransientError | None]:
        """Store, send and forget; say of each whether it is done.

        Whatever breaks in between, no delivery is forgotten before its result is stored and its answer is sent.
        """
        ...

    async def close(self) -> None:
        """Stop taking part; what is not settled stays for another replica."""
        ...


class ClaimBook(Protocol):
    """Which calls with an effect are run or were run, known to all replicas of a service."""

    async def claim(self, key: CallKey, *, entry_id: str, fingerprint: bytes) -> Claim:
        """Make sure that at most one delivery of this call is run among all replicas.

        The same delivery is granted again: a replica that died in the middle is followed by a second try.
        """
        ...

    async def keep(self, keys: Sequence[CallKey]) -> None:
        """Say that these are still being run, so that the claims do not expire."""
        ...

    async def release(self, key: CallKey, *, entry_id: str) -> None:
        """Give up the claim of a delivery that will not be run to its end; a stored result stays."""
        ...


class CancellationFeed(Protocol):
    """What callers no longer wait for, as every replica of a service hears it."""

    async def receive(self) -> Sequence[Fields]:
        """Wait for cancellations, beginning with those of the last minutes; none when the wait was long enough."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class RpcTransport(Protocol):
    """Makes channels."""

    def caller(self, service: str, instance: str) -> CallerChannel:
        """Return the channel of one calling process."""
        ...

    def responder(self, service: str, instance: str) -> ResponderChannel:
        """Return the channel of one answering process."""
        ...

    def claims(self, service: str) -> ClaimBook:
        """Return the claims of ``service``."""
        ...

    def cancellations(self, service: str) -> CancellationFeed:
        """Return what the callers of ``service`` no longer wait for."""
        ...
