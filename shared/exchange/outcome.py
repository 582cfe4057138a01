"""What an answer of the exchange proves: accepted, refused, or nothing.

Decided from HTTP status, numeric code and text, never from an exception class of ccxt: those differ by URL, and a 200
with a damaged body looks like success there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from shared.errors import (
    ConnectionLostError,
    ExchangeError,
    OrderRejectedError,
    OutcomeUnknownError,
    OverloadedError,
    QuantumTraderError,
    TransientError,
)


class Outcome(StrEnum):
    """Fate of one request."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"  # definitive: nothing was executed
    UNKNOWN = "UNKNOWN"  # query; never send again until absence is proven


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came back.

    Attributes:
        method: GET, POST, PUT or DELETE.
        path: Path of the URL, without the query.
        http_status: None when no answer arrived.
        body: Text of the answer; empty when none arrived.
        never_sent: True when it is certain that the exchange never saw the request.
    """

    method: str
    path: str
    http_status: int | None
    body: str
    never_sent: bool = False

    @property
    def code(self) -> int | None:
        """Binance's numeric code, or None when the body holds none."""
        found = _fields(self.body).get("code")
        try:
            return int(found) if isinstance(found, (int, str)) else None
        except ValueError:
            return None

    @property
    def message(self) -> str:
        """Binance's text, or the first 200 characters of a body that is not theirs."""
        found = _fields(self.body).get("msg")
        return found if isinstance(found, str) else self.body[:200]

    @property
    def outcome(self) -> Outcome:
        """What the answer proves; an order counts as accepted only when the answer names its id."""
        if self.never_sent:
            return Outcome.REJECTED
        outcome = classify(self.http_status, self.code, self.message, self.body)
        if outcome is Outcome.ACCEPTED and (self.method, self.path.rpartition("/")[2]) in _NAMES_AN_ORDER:
            fields = _fields(self.body)
            if self.code is None and not (fields.get("orderId") or fields.get("algoId")):
                return Outcome.UNKNOWN
        return outcome


#: Codes that prove nothing about the order: the state of the backend, or of another order, is in doubt.
_AMBIGUOUS_CODES: Mapping[int, str] = MappingProxyType(
    {
        -1000: "unknown error",
        -1006: "unexpected response, execution status unknown",
        -1007: "timeout, execution status unknown",
        -2011: "unknown order: filled, cancelled, or not visible yet",
        -2013: "order does not exist, or is not visible yet",
        -4116: "duplicate client id: the first copy is alive",
    }
)
#: Codes that say the wanted state is already there.
_NOTHING_TO_DO = frozenset({-4046, -4059})
#: Texts of HTTP 503 that say the request failed for certain.
_FAILED_503 = ("Service Unavailable", "Internal error; unable to process your request")
#: Refused before the exchange looks at the request: firewall, rate limit, ban.
_REFUSED_STATUS = frozenset({403, 418, 429})


class Consequence(StrEnum):
    """What a refusal says beyond the one request."""

    MEASURE_CLOCK = "MEASURE_CLOCK"  # our time stamps are wrong
    KEEP_ENTRIES_BACK = "KEEP_ENTRIES_BACK"  # key, mode or state of the account is not what it must be


#: Codes that concern more than the request that they answer; refusals without an entry concern only that.
CONSEQUENCES: Mapping[int, Consequence] = MappingProxyType(
    {
        -1021: Consequence.MEASURE_CLOCK,
        -5028: Consequence.MEASURE_CLOCK,
        **dict.fromkeys(
            (
                -1002, -1022, -2014, -2015, -2017,  # key, signature, address
                -4061, -4067, -4068,  # position mode
                -2023, -4087, -4088, -4400, -4401,  # in liquidation, or restricted to reducing
                -4120,  # a conditional order was sent to the wrong endpoint: our own mistake
            ),
            Consequence.KEEP_ENTRIES_BACK,
        ),
    }
)  # fmt: skip


def classify(http_status: int | None, code: int | None, message: str, body: str) -> Outcome:
    """Return what an answer proves about the request.

    Args:
        http_status: None when no answer arrived.
        code: Binance's numeric code, None without one.
        message: Binance's text.
        body: The whole answer; decides whether a 2xx is an answer at all.
    """
    if http_status is None or code in _AMBIGUOUS_CODES:
        return Outcome.UNKNOWN
    if code in _NOTHING_TO_DO:
        return Outcome.ACCEPTED
    if _is_refused(http_status, code, message):
        return Outcome.REJECTED
    if 200 <= http_status < 300 and _is_json(body):
        return Outcome.ACCEPTED
    return Outcome.UNKNOWN


def _is_refused(http_status: int, code: int | None, message: str) -> bool:
    if http_status in _REFUSED_STATUS:
        return True
    if http_status == 503:
        return code == -1008 or any(text in message for text in _FAILED_503)
    if http_status == 408 or http_status >= 500:
        return code == -1008  # whatever else it says, the part of Binance that says it may not know
    return code is not None and code < 0


def _is_json(body: str) -> bool:
    """Tell whether ``body`` is a JSON object or list, as every answer of Binance is."""
    try:
        return isinstance(json.loads(body), (dict, list))
    except ValueError:
        return False


def _fields(body: str) -> Mapping[str, object]:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


#: Requests whose answer must hold an order id.
_NAMES_AN_ORDER = frozenset({("POST", "order"), ("POST", "algoOrder")})
#: Where the client leaves the answer on an exception of ccxt.
ANSWER_ATTRIBUTE = "quantum_trader_answer"
#: ccxt classes of errors that it raises before it sends anything.
_LOCAL_REFUSALS = frozenset(
    {"ArgumentsRequired", "AuthenticationError", "BadRequest", "BadSymbol", "InvalidOrder", "NotSupported"}
)


def translate(error: Exception) -> ExchangeError | TransientError:
    """Return ``error`` of the exchange client as one of ours.

    For requests that change something (POST, PUT, DELETE): ``OrderRejectedError`` when nothing was executed for
    certain, ``ConnectionLostError`` when the request was never sent, else ``OutcomeUnknownError``. For GET:
    ``OrderRejectedError`` on a definitive refusal, ``OutcomeUnknownError`` on -2011 and -2013 (absence is not proven
    by one of them), ``OverloadedError`` when the limit is reached, else ``ConnectionLostError``: a read has no effect,
    so it may be repeated.
    """
    if isinstance(error, (ExchangeError, TransientError)):
        return error
    answer = getattr(error, ANSWER_ATTRIBUTE, None)
    if isinstance(answer, Answer):
        return error_for(answer)
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, QuantumTraderError) and _is_local_refusal(error):
        return OrderRejectedError(f"refused before sending: {text}")
    return OutcomeUnknownError(f"no outcome: {text}")


def error_for(answer: Answer) -> ExchangeError | TransientError:
    """Return the error that ``answer`` stands for; see ``translate``."""
    where = f"{answer.method} {answer.path}"
    told = f"{where}: HTTP {answer.http_status}, code {answer.code}, {answer.message or 'no body'}"
    if answer.never_sent:
        return ConnectionLostError(f"{where}: the exchange cannot be reached, the request was not sent")
    if answer.outcome is Outcome.ACCEPTED:  # the wanted state is already there
        return ExchangeError(told, code=answer.code, http_status=answer.http_status)
    if answer.method == "GET":
        return _error_for_read(answer, told)
    if answer.outcome is Outcome.REJECTED:
        return OrderRejectedError(told, code=answer.code, http_status=answer.http_status)
    if answer.http_status is None:
        told = f"{where}: no answer arrived"
    return OutcomeUnknownError(told, code=answer.code, http_status=answer.http_status)


def _error_for_read(answer: Answer, told: str) -> ExchangeError | TransientError:
    if answer.http_status in (418, 429):
        return OverloadedError(told)
    if answer.code is None or answer.http_status is None or answer.http_status >= 500:
        return ConnectionLostError(told)
    if answer.outcome is Outcome.REJECTED:
        return OrderRejectedError(told, code=answer.code, http_status=answer.http_status)
    return OutcomeUnknownError(told, code=answer.code, http_status=answer.http_status)


def _is_local_refusal(error: Exception) -> bool:
    return any(kind.__name__ in _LOCAL_REFUSALS for kind in type(error).__mro__)
