"""Keys, time windows and signatures over raw bytes."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta

import pytest

from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.request_security import Credentials, check_key, check_signed
from shared.errors import OrderRejectedError
from tests.support.markets import START

CREDENTIALS = Credentials("key", "secret")
NOW_MS = int(START.timestamp() * 1000)


def signature(payload: bytes) -> bytes:
    return hmac.new(b"secret", payload, hashlib.sha256).hexdigest().encode()


def check(query: bytes, body: bytes = b"", late_ms: int = 0) -> None:
    now = START + timedelta(milliseconds=late_ms)
    check_signed(query, body, Parameters.parse(query, body), CREDENTIALS, now)


def signed(payload: bytes) -> bytes:
    return payload + b"&signature=" + signature(payload)


def test_a_signed_query_and_a_signed_body_pass() -> None:
    payload = f"symbol=BTCUSDT&timestamp={NOW_MS}".encode()
    check(signed(payload))
    check(b"", signed(payload))


def test_query_and_body_are_signed_as_one() -> None:
    query, body = b"symbol=BTCUSDT", f"timestamp={NOW_MS}".encode()
    check(query, body + b"&signature=" + signature(query + body))
    check(query + b"&signature=" + signature(query + body), body)


def test_the_bytes_count_not_what_they_decode_to() -> None:
    escaped = b"ids=%5B1%2C2%5D&timestamp=" + str(NOW_MS).encode()
    check(signed(escaped))
    decoded = b"ids=[1,2]&timestamp=" + str(NOW_MS).encode()
    with pytest.raises(OrderRejectedError) as caught:
        check(escaped + b"&signature=" + signature(decoded))
    assert caught.value.code == -1022


def test_a_changed_parameter_or_another_secret_breaks_the_signature() -> None:
    payload = f"quantity=1&timestamp={NOW_MS}".encode()
    for forged in (signed(payload).replace(b"quantity=1", b"quantity=9"), payload + b"&signature=" + b"0" * 64):
        with pytest.raises(OrderRejectedError, match="Signature for this request is not valid") as caught:
            check(forged)
        assert caught.value.code == -1022


@pytest.mark.parametrize(
    ("stamp", "window", "late_ms", "fits"),
    [
        (NOW_MS, "", 0, True),
        (NOW_MS, "", 5_000, True),
        (NOW_MS, "", 5_001, False),
        (NOW_MS, "&recvWindow=3000", 3_000, True),
        (NOW_MS, "&recvWindow=3000", 3_001, False),
        (NOW_MS + 999, "", 0, True),
        (NOW_MS + 1_000, "", 0, False),
    ],
)
def test_the_time_window(stamp: int, window: str, late_ms: int, fits: bool) -> None:
    request = signed(f"timestamp={stamp}{window}".encode())
    if fits:
        check(request, late_ms=late_ms)
        return
    with pytest.raises(OrderRejectedError) as caught:
        check(request, late_ms=late_ms)
    assert caught.value.code == -1021
    assert ("1000ms ahead" in str(caught.value)) == (stamp > NOW_MS)


def test_missing_and_senseless_parameters() -> None:
    for request, code in (
        (b"", -1102),
        (b"timestamp=now", -1102),
        (f"timestamp={NOW_MS}".encode(), -1102),
        (f"timestamp={NOW_MS}&recvWindow=70000".encode(), -1130),
    ):
        with pytest.raises(OrderRejectedError) as caught:
            check(request)
        assert caught.value.code == code


def test_keys() -> None:
    check_key("key", CREDENTIALS)
    for sent, code in ((None, -2014), ("", -2014), ("other", -2015)):
        with pytest.raises(OrderRejectedError) as caught:
            check_key(sent, CREDENTIALS)
        assert (caught.value.code, caught.value.http_status) == (code, 401)
