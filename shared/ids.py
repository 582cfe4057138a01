"""Identifiers: random in production, seeded in replay, derived where the same cause must give the same name."""

from __future__ import annotations

import hashlib
import random
import uuid
from secrets import token_bytes
from typing import Protocol

_NAMESPACE = uuid.UUID("6c1f5f0e-3d0a-5f5e-9a5b-0f6f5a1d7c33")


class IdSource(Protocol):
    """Makes identifiers that do not repeat."""

    def new(self) -> str:
        """Return a fresh UUID as 36 characters of text."""
        ...


#: Where a UUID says that it is of version 4 and of the usual variant: what stays of the random bits, what is set.
_RANDOM_BITS = 0xFFFFFFFF_FFFF_0FFF_3FFF_FFFFFFFFFFFF
_VERSION_4 = 0x00000000_0000_4000_8000_000000000000


class RandomIds:
    """UUID version 4 from the operating system; written by hand, because every event needs one or two of them."""

    def new(self) -> str:
        digits = f"{int.from_bytes(token_bytes(16), 'big') & _RANDOM_BITS | _VERSION_4:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class SeededIds:
    """The same sequence of UUIDs for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - names, not secrets

    def new(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))


def derive_id(*parts: str) -> str:
    """Return the UUID that always belongs to these parts; makes a repeated publish recognisable."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))


def client_order_id(cause_event_id: str, leg: str, sequence: int) -> str:
    """Return the client order id of one intent: 30 characters out of ``[a-z0-9-]``.

    Binance allows ``^[.A-Z:/a-z0-9_-]{1,36}$``. The same intent always gets the same id, so that an order found
    on the exchange leads back to its row.
    """
    digest = hashlib.sha256(f"{cause_event_id}\x1f{leg}\x1f{sequence}".encode()).hexdigest()
    return f"qt3-{leg[:2]}-{digest[:23]}"
