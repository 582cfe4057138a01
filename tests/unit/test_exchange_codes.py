"""Every error code that matters, what it proves about the request, and what it says about all later ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shared.exchange.outcome import CONSEQUENCES, Answer, Consequence, Outcome
from shared.exchange.pauses import PauseKind, pause_after

CODES = Path(__file__).parents[3] / "shared" / "golden" / "binance_error_codes.txt"
REJECTED, UNKNOWN, ACCEPTED = Outcome.REJECTED, Outcome.UNKNOWN, Outcome.ACCEPTED
CLOCK, BACK = Consequence.MEASURE_CLOCK, Consequence.KEEP_ENTRIES_BACK

#: HTTP status, code -> outcome, consequence, pause.
DECISIONS: dict[tuple[int, int], tuple[Outcome, Consequence | None, PauseKind | None]] = {
    (400, -1000): (UNKNOWN, None, None),
    (503, -1000): (UNKNOWN, None, None),
    (500, -1001): (UNKNOWN, None, None),
    (401, -1002): (REJECTED, BACK, None),
    (429, -1003): (REJECTED, None, PauseKind.LIMIT),
    (418, -1003): (REJECTED, None, PauseKind.BAN),
    (400, -1006): (UNKNOWN, None, None),
    (503, -1006): (UNKNOWN, None, None),
    (400, -1007): (UNKNOWN, None, None),
    (408, -1007): (UNKNOWN, None, None),
    (503, -1007): (UNKNOWN, None, None),
    (504, -1007): (UNKNOWN, None, None),
    (503, -1008): (REJECTED, None, PauseKind.ORDERS),
    (400, -1013): (REJECTED, None, None),
    (400, -1015): (REJECTED, None, PauseKind.ORDERS),
    (429, -1015): (REJECTED, None, PauseKind.ORDERS),
    (400, -1021): (REJECTED, CLOCK, None),
    (400, -1022): (REJECTED, BACK, None),
    (400, -1102): (REJECTED, None, None),
    (400, -1111): (REJECTED, None, None),
    (400, -1121): (REJECTED, None, None),
    (400, -1125): (REJECTED, None, None),
    (400, -2010): (REJECTED, None, None),
    (400, -2011): (UNKNOWN, None, None),
    (400, -2013): (UNKNOWN, None, None),
    (401, -2014): (REJECTED, BACK, None),
    (401, -2015): (REJECTED, BACK, None),
    (400, -2017): (REJECTED, BACK, None),
    (400, -2018): (REJECTED, None, None),
    (400, -2019): (REJECTED, None, None),
    (400, -2021): (REJECTED, None, None),
    (400, -2022): (REJECTED, None, None),
    (400, -2023): (REJECTED, BACK, None),
    (400, -2025): (REJECTED, None, None),
    (400, -2027): (REJECTED, None, None),
    **{(400, code): (REJECTED, None, None) for code in range(-4028, -4002)},
    (400, -4045): (REJECTED, None, None),
    (400, -4046): (ACCEPTED, None, None),
    (400, -4059): (ACCEPTED, None, None),
    (400, -4061): (REJECTED, BACK, None),
    (400, -4067): (REJECTED, BACK, None),
    (400, -4068): (REJECTED, BACK, None),
    (400, -4087): (REJECTED, BACK, None),
    (400, -4116): (UNKNOWN, None, None),
    (400, -4118): (REJECTED, None, None),
    (400, -4120): (REJECTED, BACK, None),
    (400, -4131): (REJECTED, None, None),
    (400, -4164): (REJECTED, None, None),
    (400, -4400): (REJECTED, BACK, None),
    (400, -4401): (REJECTED, BACK, None),
    (400, -5021): (REJECTED, None, None),
    (400, -5022): (REJECTED, None, None),
    (400, -5028): (REJECTED, CLOCK, None),
}
#: Only these prove nothing, and only these say that all is well; any other code of HTTP 400 is a definitive refusal.
_PROVE_NOTHING = {-1000, -1006, -1007, -2011, -2013, -4116}
_ALL_IS_WELL = {-4046, -4059}
#: Binance sends these, and its list of codes does not have them.
_ON_OTHER_PAGES = {-1008, -4120, -4400, -4401}


def answered(status: int, code: int) -> Answer:
    return Answer("POST", "/fapi/v1/order", status, json.dumps({"code": code, "msg": "text"}))


@pytest.mark.parametrize(("status", "code"), DECISIONS)
def test_what_a_code_decides(status: int, code: int) -> None:
    outcome, consequence, pause = DECISIONS[status, code]
    answer = answered(status, code)

    assert answer.outcome is outcome
    assert CONSEQUENCES.get(code) is consequence
    asked = pause_after(answer, {}, 0)
    assert (None if asked is None else asked.kind) is pause


@pytest.mark.skipif(not CODES.exists(), reason="the reference data is not here")
def test_every_code_of_binance_is_decided() -> None:
    codes = {int(found[1]) for line in CODES.read_text().splitlines() if (found := re.match(r"(-\d+) ", line))}
    assert len(codes) > 150

    for code in codes:
        expected = UNKNOWN if code in _PROVE_NOTHING else ACCEPTED if code in _ALL_IS_WELL else REJECTED
        assert answered(400, code).outcome is expected, code
    for code in codes - {-1008, *_ALL_IS_WELL}:
        assert answered(500, code).outcome is UNKNOWN, code
        assert answered(504, code).outcome is UNKNOWN, code
    assert {code for _, code in DECISIONS} | set(CONSEQUENCES) <= codes | _ON_OTHER_PAGES


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (503, "Unknown error, please check your request or try again later.", UNKNOWN),
        (503, "Service Unavailable.", REJECTED),
        (503, "Internal error; unable to process your request. Please try again.", REJECTED),
        (503, "", UNKNOWN),
        (200, "", UNKNOWN),
        (200, "<html>", UNKNOWN),
        (200, '{"orderId": 1, "st', UNKNOWN),
        (200, "{}", UNKNOWN),
        (403, "<html>", REJECTED),
        (400, "<html>", UNKNOWN),
        (408, "", UNKNOWN),
        (502, "<html>", UNKNOWN),
        (504, "", UNKNOWN),
        (None, "", UNKNOWN),
    ],
)
def test_answers_without_a_code(status: int | None, body: str, outcome: Outcome) -> None:
    assert Answer("POST", "/fapi/v1/order", status, body).outcome is outcome
