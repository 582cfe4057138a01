"""State machines as literal tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from shared.errors import IllegalTransitionError

S = TypeVar("S")
T = TypeVar("T")


class TransitionTable(Generic[S, T]):
    """Look up ``(state, trigger) -> state`` and refuse what the table does not hold."""

    def __init__(self, name: str, table: Mapping[tuple[S, T], S]) -> None:
        self.name = name
        self._table = dict(table)

    def next_state(self, state: S, trigger: T) -> S:
        """Return the state after ``trigger``.

        Raises:
            IllegalTransitionError: The table has no such transition.
        """
        try:
            return self._table[state, trigger]
        except KeyError:
            raise IllegalTransitionError(f"{self.name}: no transition from {state} on {trigger}") from None

    def allows(self, state: S, trigger: T) -> bool:
        """Tell whether ``trigger`` is legal in ``state``."""
        return (state, trigger) in self._table
