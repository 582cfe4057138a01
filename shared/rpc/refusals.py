"""What is put aside without an answer: counted by cause, and told in the log without letting a stranger fill it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import structlog

from shared.clock import Clock
from shared.telemetry.families import CounterFamily, Figure
from shared.telemetry.metrics import Metrics

Cause: TypeAlias = Literal["too_large", "unsigned", "wrong_signature", "unreadable", "wrong_service", "outside_window"]

#: Each cause gets one line per this time.
_SECONDS_PER_LINE = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is put aside.

    Attributes:
        cause: For counting.
        detail: One line for a person.
    """

    cause: Cause
    detail: str


class Refusals:
    """Counts refusals of one kind of message.

    Attributes:
        counts: How many there were, by cause.
    """

    def __init__(
        self, kind: Literal["requests", "answers"], *, service: str, clock: Clock, metrics: Metrics | None
    ) -> None:
        """Prepare, with nothing refused.

        Args:
            kind: What is refused here; names the figure ``rpc_requests_refused_total`` or
                ``rpc_answers_refused_total``.
            service: Service that refuses.
            clock: Wall clock.
            metrics: Figures of the process.
        """
        self._event = f"rpc_{kind}_refused"
        self._clock = clock
        self._counts: Counter[Cause] = Counter()
        self._untold: Counter[Cause] = Counter()
        self._told_at: dict[Cause, float] = {}
        self.counts: Mapping[Cause, int] = MappingProxyType(self._counts)
        if metrics is not None:
            meaning = f"RPC {kind} put aside unread, by cause."
            figure = Figure("counter", f"rpc_{kind}_refused_total", meaning, ("service", "cause"))
            family = CounterFamily(figure, service)
            family.follow(lambda: {(cause,): count for cause, count in self._counts.items()})
            metrics.registry.register(family)

    def note(self, refusal: Refusal) -> None:
        """Count one refusal; tell it unless its cause was told a moment ago."""
        cause, now = refusal.cause, self._clock.monotonic()
        self._counts[cause] += 1
        self._untold[cause] += 1
        if now - self._told_at.get(cause, -_SECONDS_PER_LINE) >= _SECONDS_PER_LINE:
            self._told_at[cause] = now
            log.warning(self._event, cause=cause, count=self._untold.pop(cause), detail=refusal.detail)
