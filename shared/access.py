"""Who may use a control endpoint: one bearer token, compared in constant time, with a growing wait after failures."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from shared.clock import Clock

#: Failures that cost nothing; people mistype.
_FREE_FAILURES = 5
_LONGEST_WAIT_SECONDS = 30.0
#: Failures are forgotten this long after the last one.
_MEMORY_SECONDS = 600.0
#: Callers whose failures are remembered; the longest ago goes first.
_CALLERS = 1024


class Denial(StrEnum):
    """Why a caller is not admitted."""

    CLOSED = "CLOSED"  # no token is configured, so nobody is
    NO_TOKEN = "NO_TOKEN"  # noqa: S105 - a name
    WRONG_TOKEN = "WRONG_TOKEN"  # noqa: S105 - a name
    THROTTLED = "THROTTLED"


@dataclass(frozen=True, slots=True)
class Denied:
    """An answer to who is not admitted.

    Attributes:
        kind: For programs.
        message: One line for a person, without secrets.
        retry_after_seconds: When it may try again; 0 at once.
    """

    kind: Denial
    message: str
    retry_after_seconds: float = 0.0


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0

    @property
    def wait_until(self) -> float:
        beyond = self.count - _FREE_FAILURES
        return self.last + min(2.0 ** min(beyond, 10), _LONGEST_WAIT_SECONDS) if beyond >= 0 else self.last


class TokenGate:
    """Admits who shows the token."""

    def __init__(self, token: str | None, *, variable: str, clock: Clock) -> None:
        """Prepare.

        Args:
            token: What callers must show; None admits nobody.
            variable: Name of the setting that holds it, for the message that says how to open the gate.
            clock: Wall clock.
        """
        self._digest = None if token is None else _digest(token)
        self._variable = variable
        self._clock = clock
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def check(self, authorization: str | None, *, caller: str) -> Denied | None:
        """Return why ``caller`` is not admitted; None when it is.

        Args:
            authorization: The header of that name; None when there is none.
            caller: Address; failures are counted for each.
        """
        if self._digest is None:
            return Denied(
                Denial.CLOSED,
                f"control endpoints are closed: set {self._variable} to a random secret of at least 32 characters "
                f"(or {self._variable}_FILE to a file that holds it) and restart the service",
            )
        wait = self._remaining_wait(caller)
        if wait > 0:
            return Denied(Denial.THROTTLED, f"too many failures; try again in {wait:.0f} s", wait)
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return Denied(Denial.NO_TOKEN, "a token is needed: send the header Authorization: Bearer <token>")
        # Digests have one length, so that not even the length of the token shows in the time.
        if hmac.compare_digest(_digest(token.strip()), self._digest):
            self._failures.pop(caller, None)
            return None
        self._count_failure(caller)
        return Denied(Denial.WRONG_TOKEN, "the token is wrong")

    def _remaining_wait(self, caller: str) -> float:
        failures = self._failures.get(caller)
        if failures is None:
            return 0.0
        now = self._clock.monotonic()
        if now - failures.last > _MEMORY_SECONDS:
            del self._failures[caller]
        return max(0.0, failures.wait_until - now)

    def _count_failure(self, caller: str) -> None:
        failures = self._failures.setdefault(caller, _Failures())
        failures.count += 1
        failures.last = self._clock.monotonic()
        self._failures.move_to_end(caller)
        if len(self._failures) > _CALLERS:
            self._failures.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
