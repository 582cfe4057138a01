"""Request parameters, read with Binance's refusals for what is missing or malformed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar
from urllib.parse import parse_qsl

import orjson

from infrastructure.paper_exchange.refusals import refusal
from shared.errors import InvalidInputError
from shared.trading.money import to_decimal

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of market time, both ends included, compared in whole milliseconds as clients see them.

    Attributes:
        start: None without a beginning; likewise ``end``.
        is_forward: Whether the client named the beginning, so that the oldest rows come first.
    """

    start: datetime | None
    end: datetime | None
    is_forward: bool = False

    def holds(self, moment: datetime) -> bool:
        shown = datetime.fromtimestamp(round(moment.timestamp() * 1000) / 1000, UTC)
        return (self.start is None or shown >= self.start) and (self.end is None or shown <= self.end)


class Parameters:
    """Typed access to one request's parameters; where query and body name the same one, the query wins."""

    def __init__(self, values: Mapping[str, str], *, are_doubled: bool = False) -> None:
        self._values = values
        self._are_doubled = are_doubled

    @classmethod
    def parse(cls, query: bytes, body: bytes) -> Parameters:
        """Read URL-encoded parameters; empty ones count as not sent."""
        parts = [parse_qsl(part.decode("utf-8", "replace")) for part in (body, query)]
        doubled = any(len({name for name, _ in pairs}) < len(pairs) for pairs in parts)
        return cls({name: value for pairs in parts for name, value in pairs}, are_doubled=doubled)

    def check_unique(self) -> None:
        """Refuse a parameter that was sent twice in the query or in the body (-1101)."""
        if self._are_doubled:
            raise refusal(-1101)

    @property
    def as_sent(self) -> Mapping[str, str]:
        """Every parameter, decoded."""
        return self._values

    def batch(self, name: str) -> list[Parameters]:
        """Return a mandatory JSON list of objects as parameters of their own (-1102, -1130)."""
        try:
            rows = orjson.loads(self.text(name))
        except orjson.JSONDecodeError:
            raise refusal(-1130, name) from None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise refusal(-1130, name)
        return [Parameters({key: _as_text(value) for key, value in row.items() if value is not None}) for row in rows]

    def optional(self, name: str) -> str | None:
        return self._values.get(name)

    def text(self, name: str) -> str:
        """Return a mandatory parameter (-1102 without it)."""
        value = self._values.get(name)
        if value is None:
            raise refusal(-1102, name)
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number; mandatory when there is no ``default``."""
        text = self._values.get(name)
        if text is None and default is not None:
            return default
        try:
            return int(self.text(name))
        except ValueError:
            raise refusal(-1102, name) from None

    def optional_integer(self, name: str) -> int | None:
        return self.integer(name) if name in self._values else None

    def limit(self, default: int, most: int) -> int:
        """Return ``limit``, between 1 and ``most``."""
        value = self.integer("limit", default)
        if value < 1:
            raise refusal(-1130, "limit")
        return min(value, most)

    def decimal(self, name: str) -> Decimal:
        """Return a mandatory finite number."""
        try:
            return to_decimal(self.text(name), name=name)
        except InvalidInputError:
            raise refusal(-1102, name) from None

    def optional_decimal(self, name: str) -> Decimal | None:
        return self.decimal(name) if name in self._values else None

    def flag(self, name: str) -> bool:
        """Return a boolean, false when it was not sent."""
        value = self._values.get(name, "false").lower()
        if value not in ("true", "false"):
            raise refusal(-1130, name)
        return value == "true"

    def choice(self, name: str, kind: type[E], code: int, default: E | None = None) -> E:
        """Return one of an enumeration's values; anything else is refused with ``code``."""
        text = self._values.get(name)
        if text is None and default is not None:
            return default
        try:
            return kind(self.text(name))
        except ValueError:
            raise refusal(code) from None

    def moment(self, name: str) -> datetime | None:
        """Return an optional time that was sent as epoch milliseconds."""
        stamp = self.optional_integer(name)
        if stamp is None:
            return None
        try:
            return datetime.fromtimestamp(stamp / 1000, UTC)
        except (ValueError, OverflowError):
            raise refusal(-1130, name) from None

    def span(self, now: datetime, longest: timedelta, *, default: timedelta | None = None) -> Span:
        """Return the time window between ``startTime`` and ``endTime``.

        Args:
            now: Market time.
            longest: Widest window (-4165).
            default: How far back it reaches without ``startTime``; ``longest`` without one.
        """
        start, end = self.moment("startTime"), self.moment("endTime")
        if start is None:
            return Span((end or now) - (default or longest), end)
        if end is None:
            return Span(start, start + longest, is_forward=True)
        if start > end:
            raise refusal(-1023)
        if end - start > longest:
            raise refusal(-4165, longest.days)
        return Span(start, end, is_forward=True)


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
