"""Pauses that the exchange asks for: what an answer demands, and what is kept until it is over. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from shared.exchange.outcome import Answer


class PauseKind(StrEnum):
    """Why the exchange is left alone; later members are more serious."""

    ORDERS = "ORDERS"  # -1015, -1008, refused 503: entries back off, everything else goes on
    LIMIT = "LIMIT"  # 429: nothing goes out until Retry-After
    FIREWALL = "FIREWALL"  # 403: the firewall refuses the address
    BAN = "BAN"  # 418: nothing goes out until the end of the ban

    @property
    def stops_everything(self) -> bool:
        """True when even exits have to wait: whatever is sent makes it last longer."""
        return self is not PauseKind.ORDERS


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause.

    Attributes:
        kind: Why.
        until_ms: Its end, epoch milliseconds of this machine's clock.
        why: The answer that asked for it, in one line.
    """

    kind: PauseKind
    until_ms: int
    why: str

    def seconds_left(self, now_ms: int) -> float:
        """Return the time until its end, never below 0."""
        return max(0.0, (self.until_ms - now_ms) / 1000)

    def as_text(self) -> str:
        """Return the pause as it is stored."""
        return json.dumps(asdict(self), sort_keys=True)


def pause_of(text: str | bytes) -> Pause | None:
    """Return the pause that ``as_text`` wrote; None when it cannot be read."""
    try:
        fields = json.loads(text)
        return Pause(PauseKind(fields["kind"]), int(fields["until_ms"]), str(fields["why"]))
    except (ValueError, TypeError, KeyError):
        return None


#: Pauses where the answer names no end, seconds.
_LIMIT_SECONDS = 60.0
_BAN_SECONDS = 120.0
_FIREWALL_SECONDS = 60.0
_ORDER_RATE_SECONDS = 10.0
_OVERLOAD_SECONDS = 1.0
#: A ban lasts three days at most; a longer one is a misread answer.
_LONGEST_MS = 3 * 24 * 3600 * 1000
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")


def pause_after(answer: Answer, headers: Mapping[str, str], now_ms: int) -> Pause | None:
    """Return the pause that ``answer`` asks for, or None.

    Args:
        answer: What came back.
        headers: Its headers; names in any case.
        now_ms: Epoch milliseconds of this machine's clock.
    """
    found = _kind_and_seconds(answer)
    if found is None:
        return None
    kind, seconds = found
    until = now_ms + int(_retry_after(headers, seconds) * 1000)
    if kind is PauseKind.BAN and (told := _BANNED_UNTIL.search(answer.message)) is not None:
        until = max(until, int(told[1]))
    why = f"{answer.method} {answer.path}: HTTP {answer.http_status}, code {answer.code}"
    return Pause(kind, min(until, now_ms + _LONGEST_MS), why)


def _kind_and_seconds(answer: Answer) -> tuple[PauseKind, float] | None:
    if answer.http_status == 418:
        return PauseKind.BAN, _BAN_SECONDS
    if answer.http_status == 403 and answer.code is None:
        return PauseKind.FIREWALL, _FIREWALL_SECONDS
    if answer.code == -1015:  # of the account, not of the address
        return PauseKind.ORDERS, _ORDER_RATE_SECONDS
    if answer.http_status == 429 or answer.code == -1003:
        return PauseKind.LIMIT, _LIMIT_SECONDS
    if answer.code == -1008 or (answer.http_status == 503 and answer.message.startswith("Service Unavailable")):
        return PauseKind.ORDERS, _OVERLOAD_SECONDS
    return None


def _retry_after(headers: Mapping[str, str], otherwise: float) -> float:
    told = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return float(told) if told.isdigit() else otherwise


def longer(one: Pause | None, other: Pause | None) -> Pause | None:
    """Return the pause that ends later; on a tie the first."""
    if one is None or other is None:
        return one or other
    return other if other.until_ms > one.until_ms else one
