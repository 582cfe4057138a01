"""What becomes of an entry after a try: a pure function of the error and of how often it was tried."""

from __future__ import annotations

from dataclasses import dataclass

from shared.backoff import Backoff
from shared.errors import CommandExpiredError, ConnectionLostError, PermanentError


@dataclass(frozen=True, slots=True)
class Ack:
    """The entry is dealt with."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The command came late and was not carried out; the entry is dealt with.

    Attributes:
        reason: How late it was.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again.

    Attributes:
        delay_seconds: Wait this long first.
        attempt: Number of the next try, from 1; the same as before when the last failure does not count.
        reason: What went wrong.
    """

    delay_seconds: float
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Put the entry aside for a person.

    Attributes:
        reason: What went wrong.
    """

    reason: str


Verdict = Ack | Refused | Retry | DeadLetter

ACK = Ack()

#: 0.5 s, 1 s, 2 s, 4 s: long enough for a hiccup to pass, short enough for a signal to live.
BETWEEN_TRIES = Backoff(base_seconds=0.5, factor=2.0, cap_seconds=30.0)


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How often an entry is tried, and how far apart.

    Attributes:
        max_attempts: Failed tries after which an entry is put aside.
        max_deliveries: Tries begun, ended or not, after which an entry is put aside without another one: it may be
            what kills its consumer. Higher than ``max_attempts``, because a try also stays open when a process is
            stopped for reasons of its own.
        max_outages: Failures in a row by lost connections after which an entry is put aside; None never. A server
            that is away is not the entry's fault, and putting aside all that arrives meanwhile would lose it in all
            but name.
        backoff: Delays between tries.
    """

    max_attempts: int = 5
    max_deliveries: int = 10
    max_outages: int | None = None
    backoff: Backoff = BETWEEN_TRIES

    def before(self, attempt: int) -> DeadLetter | None:
        """Return the verdict on an entry that must not be tried again, None when try number ``attempt`` may begin."""
        if attempt <= self.max_deliveries:
            return None
        return DeadLetter(f"{attempt - 1} tries began and none ended: it may crash its consumer")

    def after(self, error: Exception | None, *, attempt: int, outages: int) -> Verdict:
        """Return the verdict on a try that ended.

        Args:
            error: What it raised; None when it succeeded.
            attempt: Its number, from 1, counted across restarts.
            outages: Tries in a row, up to this one, that a lost connection ended.
        """
        match error:
            case None:
                return ACK
            case CommandExpiredError():
                return Refused(str(error))
            case ConnectionLostError() if self.max_outages is None or outages < self.max_outages:
                return Retry(self.backoff.delay(outages), attempt, _told(error))
            case PermanentError() | ConnectionLostError():
                return DeadLetter(_told(error))
            case _ if attempt < self.max_attempts:
                return Retry(self.backoff.delay(attempt), attempt + 1, _told(error))
            case _:
                return DeadLetter(_told(error))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
