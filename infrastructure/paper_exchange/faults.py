"""Faults that a test can switch on: a literal table of kinds, and a count-down per kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from shared.errors import InvalidInputError

#: What each kind does to the next ``count`` requests or messages.
FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "hold_order_answer": "the order is executed, its HTTP answer comes `seconds` later; with `hold_events` "
        "its user events are held back as long",
        "lose_order_answer": "the order is executed, the answer is HTTP 503 'Unknown error' (execution unknown)",
        "lose_order": "the order is not executed, the answer is the same HTTP 503",
        "garble_order_answer": "the order is executed, the answer is HTTP 200 with a cut-off body",
        "drop_user_event": "a user event is not sent; `event` names the type, empty means any",
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One armed fault.

    Attributes:
        kind: A key of ``FAULTS``.
        count: How many times it still strikes.
        seconds: How long something is held, wall seconds.
        hold_events: Whether user events wait with the answer.
        event: Type of the user events it strikes; empty for all.
    """

    kind: str
    count: int = 1
    seconds: float = 0.0
    hold_events: bool = False
    event: str = ""


class Faults:
    """The armed faults, oldest first."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []

    def arm(self, fault: Fault) -> None:
        """Add ``fault``.

        Raises:
            InvalidInputError: There is no such kind, or a number makes no sense.
        """
        if fault.kind not in FAULTS:
            raise InvalidInputError(f"fault {fault.kind!r} is not known; use one of {', '.join(FAULTS)}")
        if fault.count < 1 or fault.seconds < 0:
            raise InvalidInputError(f"fault {fault.kind} needs count >= 1 and seconds >= 0")
        self._armed.append(fault)

    def clear(self) -> None:
        self._armed.clear()

    def armed(self) -> tuple[Fault, ...]:
        return tuple(self._armed)

    def strike(self, kind: str, *, event: str = "") -> Fault | None:
        """Return the oldest armed fault of ``kind`` that fits ``event`` and count it down, or None."""
        for index, fault in enumerate(self._armed):
            if fault.kind == kind and fault.event in ("", event):
                if fault.count == 1:
                    del self._armed[index]
                else:
                    self._armed[index] = replace(fault, count=fault.count - 1)
                return fault
        return None
