"""Whatever is logged: the line is JSON, holds no secret, and cannot play tricks on a terminal."""

from __future__ import annotations

import io
import json
import unicodedata
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.logs import _LineRenderer
from shared.telemetry.masking import Masker, printable

secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=30).filter(
    # A secret out of words that every line has cannot be kept apart from them.
    lambda text: len(set(text)) > 5 and not any(text in word for word in ("timestamp", "trace_id", "exception"))
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def line_of(fields: dict[str, Any], *known: str) -> bytes:
    return _LineRenderer("desk", Masker(known))(None, "info", {"event": "tested", **fields})


@given(fields=st.dictionaries(st.text(), values))
def test_every_line_is_json_with_the_fixed_fields(fields: dict[str, Any]) -> None:
    line = json.loads(line_of(fields))
    assert line["service"] == "desk"
    assert {"timestamp", "level", "trace_id", "event"} <= set(line)


@given(secret=secrets, before=st.text(), after=st.text(), how=st.sampled_from(["plain", "json", "url", "repr", "key"]))
def test_a_known_secret_is_never_written_in_any_form(secret: str, before: str, after: str, how: str) -> None:
    written: Any = {
        "plain": f"{before}{secret}{after}",
        "json": {"body": json.dumps({"inner": secret}, ensure_ascii=False)},
        "url": f"https://host/?a={quote(secret, safe='')}",
        "repr": {"nested": [{"deep": secret}]},
        "key": {secret: 1},
    }[how]
    line = line_of({"value": written}, secret)
    json.loads(line)
    assert secret.encode() not in line
    assert quote(secret, safe="").encode() not in line
    # What is read back out of the line holds it neither, except where cleaning had broken it up before.
    if secret.isprintable():
        assert secret not in _texts(json.loads(line))


@given(text=st.text())
def test_external_text_is_one_line_of_printable_characters(text: str) -> None:
    for char in _texts(json.loads(line_of({"message": text}))):
        assert unicodedata.category(char) not in {"Cc", "Cf", "Zl", "Zp", "Cs"}


@given(text=st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "GET /fapi/v1/order?symbol=BTCUSDT&signature=canary HTTP/1.1",
        "{'X-MBX-APIKEY': 'canary', 'Content-Type': 'application/json'}",
        '{"listenKey":"canary"}',
        "wss://fstream.binance.com/ws?listenKey=canary",
        "Authorization: Bearer canary",
        "authorization: canary",
        "redis://:canary@127.0.0.1:6379/0",
        "postgresql://quantum:canary@127.0.0.1:5432/quantum_trader",
        "apiKey=canary secret='canary'",
        "password=canary, next",
    ],
)
def test_secrets_that_nobody_told_us_are_known_by_their_surroundings(text: str) -> None:
    for fields in ({"event": text}, {"error": {"deep": [text]}}):
        line = line_of(fields)
        json.loads(line)
        assert b"canary" not in line
        assert b"***" in line


def test_secrets_under_their_own_name_are_masked() -> None:
    line = orjson.loads(line_of({"listenKey": "canary", "params": {"signature": "canary", "symbol": "BTCUSDT"}}))
    assert line["listenKey"] == "***"
    assert line["params"] == {"signature": "***", "symbol": "BTCUSDT"}


def test_short_words_are_no_secrets() -> None:
    assert orjson.loads(line_of({"mode": "paper"}, "paper"))["mode"] == "paper"


def test_ansi_sequences_and_line_ends_of_the_exchange_are_taken_out() -> None:
    line = orjson.loads(line_of({"msg": 'bad\x1b[31m red\x1b[0m\r\n{"level":"info"}\x9b2J\x7f\u202egp'}))
    assert line["msg"] == 'bad red  {"level":"info"}  gp'


def test_values_that_json_cannot_hold_do_not_lose_the_line() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    line = orjson.loads(line_of({"big": 2**70, "lone": "\ud800", "broken": Broken(), "raw": b"\xff", 1: {2: {3}}}))  # type: ignore[dict-item]  # on purpose
    assert line["big"] == str(2**70)
    assert line["broken"] == "<Broken>"
    assert line["1"] == {"2": [3]}


def test_a_field_named_like_a_fixed_one_does_not_replace_it() -> None:
    line = orjson.loads(line_of({"service": "other", "trace_id": "forged"}))
    assert (line["service"], line["trace_id"]) == ("desk", None)
    assert (line["service_"], line["trace_id_"]) == ("other", "forged")


def _texts(value: Any) -> str:
    out = io.StringIO()

    def walk(item: Any) -> None:
        if isinstance(item, str):
            out.write(item + " ")
        elif isinstance(item, dict):
            for key, inner in item.items():
                walk(key)
                walk(inner)
        elif isinstance(item, list):
            for inner in item:
                walk(inner)

    walk(value)
    return out.getvalue()
