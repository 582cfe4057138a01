"""Orders that are in the book and not yet in any answer: Binance's order queries can lag behind its matching."""

from __future__ import annotations


class HiddenOrders:
    """Client ids that no query shows before a time on the monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def hide(self, client_id: str, until: float) -> None:
        self._until[client_id] = until

    def show_all(self) -> None:
        self._until.clear()

    def hides(self, client_id: str, now: float) -> bool:
        """Tell whether ``client_id`` is hidden at ``now``."""
        until = self._until.get(client_id)
        if until is not None and now >= until:
            del self._until[client_id]
            until = None
        return until is not None
