"""Who may ask: API key, time window and HMAC signature, checked over the bytes as they came."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import milliseconds

_DEFAULT_WINDOW_MS = 5_000
_LONGEST_WINDOW_MS = 60_000
#: A request may come from a clock that is this far ahead.
_AHEAD_MS = 1_000
_SIGNATURE = b"signature="


class Security(StrEnum):
    """What an endpoint asks for."""

    NONE = "NONE"
    KEY = "KEY"
    SIGNED = "SIGNED"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one account's key pair."""

    api_key: str
    secret: str


def check_key(sent: str | None, credentials: Credentials) -> None:
    """Refuse a missing key (-2014) and a wrong one (-2015)."""
    if not sent:
        raise refusal(-2014)
    if not hmac.compare_digest(sent.encode(), credentials.api_key.encode()):
        raise refusal(-2015)


def check_signed(query: bytes, body: bytes, parameters: Parameters, credentials: Credentials, now: datetime) -> None:
    """Refuse a request outside its time window (-1021) or with a wrong signature (-1022).

    Args:
        query: Query string as it came, still percent-encoded: the client signed exactly these bytes.
        body: Form body as it came.
        parameters: Both, decoded.
        credentials: Key pair of the account.
        now: Wall time; market time may run at another speed.
    """
    _check_window(parameters, milliseconds(now))
    sent = parameters.text("signature")
    signed = _without_signature(query) + _without_signature(body)
    expected = hmac.new(credentials.secret.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        raise refusal(-1022)


def check_fresh(parameters: Parameters, now: datetime) -> None:
    """Refuse an order that reached the matching engine after its time window (-5028)."""
    window = parameters.integer("recvWindow", _DEFAULT_WINDOW_MS)
    if milliseconds(now) - parameters.integer("timestamp") > window:
        raise refusal(-5028)


def _check_window(parameters: Parameters, now_ms: int) -> None:
    timestamp = parameters.integer("timestamp")
    window = parameters.integer("recvWindow", _DEFAULT_WINDOW_MS)
    if not 0 < window <= _LONGEST_WINDOW_MS:
        raise refusal(-1130, "recvWindow")
    if timestamp >= now_ms + _AHEAD_MS:
        raise refusal(-1021, text="Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - timestamp > window:
        raise refusal(-1021)


def _without_signature(part: bytes) -> bytes:
    """Return ``part`` without its signature parameter, everything else byte for byte."""
    return b"&".join(piece for piece in part.split(b"&") if not piece.startswith(_SIGNATURE))
