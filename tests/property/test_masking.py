"""Whatever is logged: the line is JSON, holds no secret, and cannot play tricks on a terminal."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ManualClock, SystemClock
from shared.telemetry.logs import _LineRenderer
from shared.telemetry.masking import Masker, mask_bytes, mask_text, printable, use_masker

START = datetime(2026, 1, 1, tzinfo=UTC)
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=30).filter(
    # A secret out of words that every line has cannot be kept apart from them.
    lambda text: len(set(text)) > 5 and not any(text in word for word in ("timestamp", "trace_id", "exception"))
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def line_of(fields: dict[str, Any], *known: str) -> bytes:
    return _LineRenderer("desk", Masker(known), SystemClock())(None, "info", {"event": "tested", **fields})


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


#: Line ends of all kinds, terminal sequences, changes of the writing direction, halves of characters.
tricks = st.text(
    st.sampled_from("\r\n\x00\x07\x08\x0b\x0c\x1b[]31mAz\x7f\x85\x9b\u200b\u200e\u202e\u2028\u2029\u2066\ufeff\ud800")
)


@given(text=tricks, where=st.sampled_from(["event", "value", "name", "nested", "exception", "object"]))
def test_no_trick_gets_through_wherever_it_hides(text: str, where: str) -> None:
    class Named:
        def __str__(self) -> str:
            return text

    hidden: dict[str, dict[str, Any]] = {
        "event": {"event": text},
        "value": {"error": text},
        "name": {text: 1},
        "nested": {"headers": [{"deep": {text: text}}]},
        "exception": {"exc_info": ValueError(text)},
        "object": {"order": Named()},
    }
    line = line_of(hidden[where])
    assert b"\n" not in line
    for char in _texts(json.loads(line)):
        assert unicodedata.category(char) not in {"Cc", "Cf", "Zl", "Zp", "Cs"}
    assert "\x1b" not in line.decode()
    assert "\\u001b" not in line.decode()


class Thorough(_LineRenderer):
    """Tries the patterns on every line."""

    def _is_free_of_patterns(self, line: bytes, fields: dict[str, Any]) -> bool:
        return False


words = st.lists(
    st.sampled_from(
        [
            *("password", "Secret", "api_key", "listenKey", "signature", "authorization", "ws_token", "symbol", "abc"),
            *("=", ":", ": ", "://", "@", "'", '"', " ", "/", "&", ",", "Bearer ", "\\", "\n"),
        ]
    ),
    max_size=8,
).map("".join)
#: Renderers remember which names are harmless; these live through all examples, as in a process.
quick, thorough = (kind("desk", Masker(["known-secret"]), ManualClock(START)) for kind in (_LineRenderer, Thorough))


@given(
    fields=st.dictionaries(words, words | st.integers() | st.lists(words, max_size=2) | st.dictionaries(words, words))
)
def test_the_short_way_hides_as_much_as_the_long_one(fields: dict[str, Any]) -> None:
    fields.setdefault("event", "tested")
    assert quick(None, "info", dict(fields)) == thorough(None, "info", dict(fields))


def test_a_line_of_trade_goes_the_short_way() -> None:
    """Else the test above would compare the long way with itself."""
    fields = {"symbol": "BTCUSDT", "quantity": 0.125, "order": "qt3-en-1"}
    line = quick(None, "info", {"event": "order_submitted", **fields})
    assert quick._is_free_of_patterns(line, json.loads(line))
    assert not quick._is_free_of_patterns(line, {**json.loads(line), "api_key": 1})


@pytest.fixture
def in_force() -> Iterator[None]:
    use_masker(Masker(["canary-1\u202e2"]))
    yield
    use_masker(Masker())


@pytest.mark.usefixtures("in_force")
def test_text_for_other_places_than_the_log_is_cleaned_and_masked() -> None:
    assert (
        mask_text("refused\r\n\x1b[31mby https://u:pw@host/?signature=abc")
        == "refused  by https://u:***@host/?signature=***"
    )
    assert mask_text("of no interest") == "of no interest"
    assert mask_bytes(b'{"detail":"password: abc"}') == b'{"detail":"password: ***"}'


@given(text=st.text())
def test_masked_text_is_one_printable_line(text: str) -> None:
    assert printable(mask_text(text)) == mask_text(text)


@given(secret=secrets, before=st.text(), after=st.text())
def test_masked_text_holds_no_known_secret(secret: str, before: str, after: str) -> None:
    plain = printable(secret)  # in any other form it would not come out
    use_masker(Masker([plain]))
    try:
        assert plain not in mask_text(f"{before}{secret}{after}")
    finally:
        use_masker(Masker())


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
        "ws_token=canary",
        '{"jwt_secret_key": "canary"}',
        "PRIVATE-KEY: canary",
        "QT_API_TOKEN=canary rejected",
        "passphrase='canary'",
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


@pytest.mark.parametrize("name", ["password", "apiKey", "X-MBX-APIKEY", "ws_token", "client_secret", "signature"])
def test_a_field_that_is_called_like_a_secret_is_masked_every_time(name: str) -> None:
    renderer = _LineRenderer("desk", Masker(), SystemClock())
    for _ in range(2):  # the second time the names of the fields are known
        line = orjson.loads(renderer(None, "info", {"event": "tested", "symbol": "BTCUSDT", name: "canary"}))
        assert (line[name], line["symbol"]) == ("***", "BTCUSDT")


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
