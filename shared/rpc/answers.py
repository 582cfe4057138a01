"""Answers kept in memory for requests that come again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.clock import Clock
from shared.rpc.messages import RESULT_LIFETIME_SECONDS, CallKey, Fields, RPCRequest

#: Bounds: what goes beyond them is forgotten, oldest first.
_MOST_ANSWERS = 1000
_MOST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and what it answers.

    Attributes:
        command: Command that was asked.
        parameters: Its parameters.
        fields: Raw bytes of the answer.
        size: Their number.
        kept_at: Monotonic time.
    """

    command: str
    parameters: Mapping[str, Any]
    fields: Fields
    size: int
    kept_at: float


class AnswerMemory:
    """What this replica answered lately, within a time, a number and a size."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: OrderedDict[CallKey, Answer] = OrderedDict()
        self._bytes = 0

    def keep(self, request: RPCRequest, fields: Fields) -> None:
        """Keep the answer to ``request``; one that was kept before is replaced."""
        self._forget(request.key)
        size = sum(map(len, fields.values()))
        self._answers[request.key] = Answer(request.command, request.parameters, fields, size, self._clock.monotonic())
        self._bytes += size
        while len(self._answers) > _MOST_ANSWERS or self._bytes > _MOST_BYTES:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= oldest.size

    def find(self, key: CallKey) -> Answer | None:
        """Return the answer to that call; None when it is not known (any more)."""
        answer = self._answers.get(key)
        if answer is not None and self._clock.monotonic() - answer.kept_at > RESULT_LIFETIME_SECONDS:
            self._forget(key)
            return None
        return answer

    def _forget(self, key: CallKey) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._bytes -= answer.size
