"""How long to wait before the next try."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with jitter.

    Attributes:
        base_seconds: Delay before the second try.
        factor: Growth from one delay to the next.
        cap_seconds: Longest delay.
        jitter: Share of the delay that is drawn at random, 0 to 1.
    """

    base_seconds: float = 1.0
    factor: float = 2.0
    cap_seconds: float = 30.0
    jitter: float = 0.0

    def delay(self, attempt: int, rng: random.Random | None = None) -> float:
        """Return the delay in seconds after failed try number ``attempt`` (1, 2, ...)."""
        # The exponent is bounded so that a thousandth failure does not overflow.
        full = min(self.cap_seconds, self.base_seconds * self.factor ** min(attempt - 1, 64))
        if rng is None or self.jitter == 0:
            return full
        return full * (1 - self.jitter * rng.random())
