"""The used-weight and order-count headers of every answer."""

from __future__ import annotations

from datetime import datetime


class UsedWeight:
    """Counts request weight per minute, and orders per minute and per ten seconds, of wall time."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, int]] = {}

    def count(self, weight: int, *, order: bool, now: datetime) -> dict[str, str]:
        """Count one request and return the headers that tell the totals."""
        headers = {"X-MBX-USED-WEIGHT-1M": str(self._add("weight", 60, weight, now))}
        if order:
            headers["X-MBX-ORDER-COUNT-10S"] = str(self._add("orders-10s", 10, 1, now))
            headers["X-MBX-ORDER-COUNT-1M"] = str(self._add("orders-1m", 60, 1, now))
        return headers

    def _add(self, name: str, seconds: int, amount: int, now: datetime) -> int:
        window = int(now.timestamp()) // seconds
        known, used = self._windows.get(name, (window, 0))
        total = amount + (used if known == window else 0)
        self._windows[name] = (window, total)
        return total
