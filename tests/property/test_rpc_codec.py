from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import DecodeError
from shared.rpc import codec
from shared.rpc.codec import (
    decode_cancellation,
    decode_request,
    decode_response,
    encode_cancellation,
    encode_request,
    encode_response,
)
from shared.rpc.messages import Cancellation, RPCRequest, RPCResponse
from shared.rpc.signing import Signer

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text("abcXYZ019._-", min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FREE_FORM = st.dictionaries(TEXT, JSON, max_size=5)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds must be naive
WORDS = st.text(min_size=1, max_size=10)

REQUESTS = st.builds(
    RPCRequest,
    request_id=NAME,
    service_target=NAME,
    command=NAME,
    parameters=FREE_FORM,
    timeout_seconds=st.floats(1e-6, 86_400),
    source=NAME,
    instance=NAME,
    timestamp=TIMES,
    sequence=st.integers(1, 2**40),
    trace_id=NAME,
    causation_id=st.none() | NAME,
    require_response=st.booleans(),
)
RESPONSES = st.builds(RPCResponse, st.just("SUCCESS"), FREE_FORM) | st.builds(
    RPCResponse, st.sampled_from(["ERROR", "TIMEOUT"]), st.none(), NAME, TEXT, st.none() | st.floats(0, 1e9)
)


def answer(response: RPCResponse, request: RPCRequest) -> dict[bytes, bytes]:
    return encode_response(
        response, request, source="asked", instance="one", timestamp=request.timestamp, sequence=request.sequence
    )


def changed(fields: dict[bytes, bytes], part: bytes, name: str, value: object) -> dict[bytes, bytes]:
    return {**fields, part: orjson.dumps({**orjson.loads(fields[part]), name: value})}


@given(REQUESTS)
def test_any_request_comes_back_as_it_was(request: RPCRequest) -> None:
    assert decode_request(encode_request(request)) == request


@given(RESPONSES, REQUESTS)
def test_any_response_comes_back_as_it_was(response: RPCResponse, request: RPCRequest) -> None:
    assert decode_response(answer(response, request)) == (request.request_id, "asked", response)


@given(REQUESTS)
def test_any_cancellation_comes_back_as_it_was(request: RPCRequest) -> None:
    cancellation = Cancellation.of(request)

    assert decode_cancellation(encode_cancellation(cancellation, service="asked")) == ("asked", cancellation)


@given(REQUESTS, st.data())
def test_a_request_read_by_hand_is_what_the_event_codec_reads(request: RPCRequest, data: st.DataObject) -> None:
    fields = encode_request(request)
    part = data.draw(st.sampled_from([b"metadata", b"payload"]))
    name = data.draw(st.sampled_from([*orjson.loads(fields[part]), "metadata", "more"]))
    fields = changed(fields, part, name, data.draw(JSON | st.sampled_from(["3.0", "3.1", 1, 1.0, True, {}, ""])))

    by_hand = codec._usual_request(fields)

    if by_hand is not None:
        assert by_hand == codec._any_request(fields)


@given(RESPONSES, REQUESTS, st.data())
def test_a_response_read_by_hand_is_what_the_event_codec_reads(
    response: RPCResponse, request: RPCRequest, data: st.DataObject
) -> None:
    fields = answer(response, request)
    part = data.draw(st.sampled_from([b"metadata", b"payload"]))
    name = data.draw(st.sampled_from([*orjson.loads(fields[part]), "metadata", "more"]))
    fields = changed(fields, part, name, data.draw(JSON | st.sampled_from(["ERROR", 1, -1, 0.5, True, {}, ""])))

    by_hand = codec._usual_response(fields)

    if by_hand is not None:
        assert by_hand == codec._any_response(fields)


@pytest.mark.parametrize("read", [decode_request, decode_response, decode_cancellation])
@given(st.binary(max_size=200) | JSON.map(orjson.dumps), st.binary(max_size=200) | JSON.map(orjson.dumps), st.binary())
def test_rubbish_is_never_more_than_a_decode_error(read: Any, metadata: bytes, payload: bytes, instance: bytes) -> None:
    with pytest.raises(DecodeError):
        read({b"metadata": metadata, b"payload": payload, b"instance": instance})


@given(REQUESTS, st.data())
def test_no_byte_of_a_signed_message_can_be_changed_or_moved(request: RPCRequest, data: st.DataObject) -> None:
    signer = Signer(b"k" * 32)
    fields = encode_request(request)
    signer.sign(fields)
    assert signer.problem(fields) is None

    name = data.draw(st.sampled_from(sorted(fields)))
    at = data.draw(st.integers(0, len(fields[name]) - 1))
    flipped = bytes([fields[name][at] ^ data.draw(st.integers(1, 255))])
    assert signer.problem({**fields, name: fields[name][:at] + flipped + fields[name][at + 1 :]}) == "wrong_signature"
    moved = {**fields, b"metadata": fields[b"metadata"][:-1], b"payload": fields[b"metadata"][-1:] + fields[b"payload"]}
    assert signer.problem(moved) == "wrong_signature"
    assert Signer(b"l" * 32).problem(fields) == "wrong_signature"
