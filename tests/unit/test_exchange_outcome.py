"""What an answer of the exchange proves, from status, code and text alone."""

from __future__ import annotations

import json

import pytest

from shared.errors import (
    ConnectionLostError,
    ExchangeError,
    OrderRejectedError,
    OutcomeUnknownError,
    OverloadedError,
    TransientError,
)
from shared.exchange.outcome import ANSWER_ATTRIBUTE, Answer, Outcome, classify, translate

ACCEPTED, REJECTED, UNKNOWN = Outcome.ACCEPTED, Outcome.REJECTED, Outcome.UNKNOWN


def refusal(code: int, message: str = "text") -> str:
    return json.dumps({"code": code, "msg": message})


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, '{"orderId": 1}', ACCEPTED),
        (200, "<html>gateway</html>", UNKNOWN),
        (200, "", UNKNOWN),
        (200, '{"orderId": 1, "sta', UNKNOWN),
        (200, '"text"', UNKNOWN),
        (None, "", UNKNOWN),
        (400, refusal(-2019), REJECTED),
        (400, refusal(-2021), REJECTED),
        (400, refusal(-2022), REJECTED),
        (400, refusal(-4164), REJECTED),
        (400, refusal(-1021), REJECTED),
        (400, refusal(-5028), REJECTED),
        (401, refusal(-2015), REJECTED),
        (400, refusal(-1022), REJECTED),
        (400, refusal(-5022), REJECTED),
        (400, refusal(-1015), REJECTED),
        (429, refusal(-1003), REJECTED),
        (418, refusal(-1003), REJECTED),
        (403, "<html>firewall</html>", REJECTED),
        (400, refusal(-4046), ACCEPTED),
        (400, refusal(-4059), ACCEPTED),
        (400, refusal(-2011), UNKNOWN),
        (400, refusal(-2013), UNKNOWN),
        (400, refusal(-4116), UNKNOWN),
        (400, refusal(-1006), UNKNOWN),
        (400, refusal(-1007), UNKNOWN),
        (503, refusal(-1000, "Unknown error, please check your request or try again later."), UNKNOWN),
        (503, refusal(-1000, "Service Unavailable."), UNKNOWN),
        (503, '{"msg": "Unknown error, please check your request or try again later."}', UNKNOWN),
        (503, '{"msg": "Service Unavailable."}', REJECTED),
        (503, '{"msg": "Internal error; unable to process your request. Please try again."}', REJECTED),
        (503, refusal(-1001, "Internal error; unable to process your request. Please try again."), REJECTED),
        (503, refusal(-1008), REJECTED),
        (503, "<html>busy</html>", UNKNOWN),
        (408, "", UNKNOWN),
        (502, "<html>bad gateway</html>", UNKNOWN),
        (504, "", UNKNOWN),
        (400, "<html>bad request</html>", UNKNOWN),
        (500, '{"code": -1000, "msg": "boom"}', UNKNOWN),
    ],
)
def test_the_table_of_answers(status: int | None, body: str, outcome: Outcome) -> None:
    answer = Answer("POST", "/fapi/v1/order", status, body)
    assert answer.outcome is outcome
    assert classify(status, answer.code, answer.message, body) is outcome


@pytest.mark.parametrize("body", ["{}", "[]", '{"status": "NEW"}', '{"orderId": null}'])
def test_a_placed_order_must_be_named_by_its_answer(body: str) -> None:
    assert Answer("POST", "/fapi/v1/order", 200, body).outcome is UNKNOWN
    assert Answer("POST", "/fapi/v1/algoOrder", 200, body).outcome is UNKNOWN
    assert Answer("PUT", "/fapi/v1/listenKey", 200, body).outcome is ACCEPTED


class LibraryError(Exception):
    """Stands for any exception of the exchange library."""


class InvalidOrder(Exception):
    """Has the name of an error that the library raises before it sends."""


def failed(answer: Answer) -> Exception:
    error = LibraryError("misleading text")
    setattr(error, ANSWER_ATTRIBUTE, answer)
    return error


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer("POST", "/o", 400, refusal(-2019)), OrderRejectedError),
        (Answer("POST", "/o", 503, "busy"), OutcomeUnknownError),
        (Answer("POST", "/o", None, ""), OutcomeUnknownError),
        (Answer("POST", "/o", None, "", never_sent=True), ConnectionLostError),
        (Answer("DELETE", "/o", 400, refusal(-2011)), OutcomeUnknownError),
        (Answer("POST", "/o", 429, refusal(-1003)), OrderRejectedError),
        (Answer("POST", "/o", 400, refusal(-4046)), ExchangeError),
        (Answer("GET", "/o", None, ""), ConnectionLostError),
        (Answer("GET", "/o", 200, "<html>"), ConnectionLostError),
        (Answer("GET", "/o", 502, "<html>"), ConnectionLostError),
        (Answer("GET", "/o", 429, refusal(-1003)), OverloadedError),
        (Answer("GET", "/o", 400, refusal(-2013)), OutcomeUnknownError),
        (Answer("GET", "/o", 400, refusal(-1121)), OrderRejectedError),
    ],
)
def test_errors_are_translated_by_their_answer(answer: Answer, kind: type[Exception]) -> None:
    translated = translate(failed(answer))
    assert type(translated) is kind
    assert "misleading" not in str(translated)
    assert "\n" not in str(translated)
    if isinstance(translated, ExchangeError):
        assert translated.code == answer.code


def test_errors_without_an_answer() -> None:
    assert isinstance(translate(InvalidOrder("amount too small")), OrderRejectedError)
    assert isinstance(translate(KeyError("orderId")), OutcomeUnknownError)
    assert isinstance(translate(LibraryError("?")), OutcomeUnknownError)
    for ours in (OrderRejectedError("x", code=-1), ConnectionLostError("y")):
        assert translate(ours) is ours
    assert issubclass(ConnectionLostError, TransientError)
