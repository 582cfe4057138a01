from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from pydantic import ValidationError

from shared.clock import SystemClock
from shared.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    DecodeError,
    InvalidInputError,
    OverloadedError,
    QuantumTraderError,
)
from shared.events.codec import decode, encode
from shared.events.envelope import Event
from shared.events.registry import AI, ANALYTICS_OS, EXEC_RISK
from shared.rpc.codec import (
    decode_cancellation,
    decode_request,
    decode_response,
    encode_cancellation,
    encode_request,
    encode_response,
)
from shared.rpc.commands import (
    COMMANDS,
    GetPositionStatusResult,
    GetSignalResult,
    GetTopOpportunitiesRequest,
    Position,
    Question,
    ValidateRiskRequest,
    ValidateRiskResult,
    commands_by_question,
)
from shared.rpc.execution import error_code
from shared.rpc.memory_transport import MemoryRpcTransport
from shared.rpc.messages import Cancellation, RPCRequest, RPCResponse
from shared.telemetry.metrics import Metrics
from tests.support.rpc_stage import Cast, Doubler, MemoryRpcStage

AT = datetime(2026, 1, 1, tzinfo=UTC)

REQUEST = RPCRequest(
    request_id="call-1",
    service_target=EXEC_RISK,
    command="validate_risk",
    parameters={"symbol": "BTCUSDT", "size_usd": 1000.0, "leverage": 10.0},
    timeout_seconds=5.0,
    source=AI,
    instance="host:1",
    timestamp=AT,
    sequence=3,
    trace_id="trace-1",
    causation_id="event-1",
)


def answer(response: RPCResponse) -> dict[bytes, bytes]:
    return encode_response(response, REQUEST, source=EXEC_RISK, instance="host:2", timestamp=AT, sequence=1)


def test_a_request_comes_back_as_it_was() -> None:
    assert decode_request(encode_request(REQUEST)) == REQUEST
    assert REQUEST.deadline == AT + timedelta(seconds=5)


@pytest.mark.parametrize(
    "response",
    [
        RPCResponse("SUCCESS", {"approved": True}, processing_time_ms=1.5),
        RPCResponse("ERROR", error_code="NO_MODEL", error_message="no model is ready"),
    ],
)
def test_a_response_comes_back_with_the_id_of_its_request(response: RPCResponse) -> None:
    assert decode_response(answer(response)) == ("call-1", EXEC_RISK, response)


def test_both_are_events_of_the_catalogue() -> None:
    request, response = decode(encode_request(REQUEST)), decode(answer(RPCResponse("SUCCESS", {})))

    assert (request.metadata.event_type, response.metadata.event_type) == ("rpc.request", "rpc.response")
    assert response.metadata.trace_id == response.payload.request_trace_id == "trace-1"
    assert response.metadata.causation_id == request.metadata.event_id


@pytest.mark.parametrize("instance", [b"", b"a b", b"x" * 129, b"\xff", "ü".encode()])
def test_a_request_that_names_no_possible_inbox_is_refused(instance: bytes) -> None:
    with pytest.raises(DecodeError, match="instance"):
        decode_request({**encode_request(REQUEST), b"instance": instance})


@pytest.mark.parametrize("source", ["a:b", "*", "x" * 65])
def test_a_source_cannot_reach_into_another_services_inbox(source: str) -> None:
    with pytest.raises(DecodeError, match="service"):
        decode_request(encode_request(replace(REQUEST, source=source)))


def test_the_inbox_is_never_taken_from_the_parameters() -> None:
    request = replace(REQUEST, parameters={"reply_to": "quantum:policy:current", "instance": "thief"})

    assert (decode_request(encode_request(request)).source, decode_request(encode_request(request)).instance) == (
        AI,
        "host:1",
    )


def test_a_response_is_no_request_and_the_other_way_round() -> None:
    with pytest.raises(DecodeError, match=r"expected rpc\.request, was rpc\.response"):
        decode_request(answer(RPCResponse("SUCCESS", {})))
    with pytest.raises(DecodeError, match=r"expected rpc\.response, was rpc\.request"):
        decode_response(encode_request(REQUEST))


def test_a_deadline_beyond_the_calendar_is_refused() -> None:
    request = replace(REQUEST, timestamp=datetime.max.replace(tzinfo=UTC))

    with pytest.raises(DecodeError, match="may be no date"):
        decode_request(encode_request(request))


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "ü", "{p1}"])
def test_a_request_whose_id_fits_no_key_is_refused(request_id: str) -> None:
    with pytest.raises(DecodeError):
        decode_request(encode_request(replace(REQUEST, request_id=request_id)))


def test_what_another_version_or_another_hand_wrote_is_read_like_any_event() -> None:
    event = decode(encode_request(REQUEST))
    other_hand = {name.encode(): text for name, text in encode(Event(event.metadata, event.payload)).items()}
    newer = {**other_hand, b"metadata": other_hand[b"metadata"].replace(b'"3.0"', b'"3.7"')}
    foreign = {**other_hand, b"metadata": other_hand[b"metadata"].replace(b'"3.0"', b'"4.0"')}

    for fields in (other_hand, newer):
        assert decode_request({**fields, b"instance": b"host:1"}) == REQUEST
    with pytest.raises(DecodeError, match=r"'4\.0' cannot be read"):
        decode_request({**foreign, b"instance": b"host:1"})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("timeout_seconds", "0"),
        ("timeout_seconds", "1e9"),
        ("timeout_seconds", '"long"'),
        ("parameters", "[]"),
        ("parameters", '{"x": NaN}'),
        ("parameters", '{"x": 1e999}'),
        ("command", '""'),
        ("service_target", "null"),
    ],
)
def test_a_request_that_breaks_the_schema_is_refused(field: str, text: str) -> None:
    fields = encode_request(REQUEST)
    payload = {**orjson.loads(fields[b"payload"]), field: "HERE"}
    fields[b"payload"] = orjson.dumps(payload).replace(b'"HERE"', text.encode())

    with pytest.raises(DecodeError):
        decode_request(fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "MAYBE"), ("result", []), ("processing_time_ms", -1), ("error_code", 7), ("request_trace_id", None)],
)
def test_a_response_that_breaks_the_schema_is_refused(field: str, value: object) -> None:
    fields = answer(RPCResponse("SUCCESS", {}))
    fields[b"payload"] = orjson.dumps({**orjson.loads(fields[b"payload"]), field: value})

    with pytest.raises(DecodeError):
        decode_response(fields)


def test_a_response_that_names_no_request_is_refused() -> None:
    fields = answer(RPCResponse("SUCCESS", {}))
    fields[b"metadata"] = orjson.dumps({**orjson.loads(fields[b"metadata"]), "causation_id": None})

    with pytest.raises(DecodeError, match="names no request"):
        decode_response(fields)


def test_a_cancellation_comes_back_as_it_was() -> None:
    cancellation = Cancellation.of(REQUEST)

    assert decode_cancellation(encode_cancellation(cancellation, service=EXEC_RISK)) == (EXEC_RISK, cancellation)
    assert (cancellation.key, cancellation.attempt) == (REQUEST.key, REQUEST.attempt)


@pytest.mark.parametrize(
    "changes",
    [{"event_type": "rpc.request"}, {"event_id": "a b"}, {"source": "a:b"}, {"timestamp": "soon"}, {"sequence": None}],
)
def test_a_cancellation_that_names_no_call_is_refused(changes: dict[str, object]) -> None:
    fields = encode_cancellation(Cancellation.of(REQUEST), service=EXEC_RISK)
    fields[b"metadata"] = orjson.dumps({**orjson.loads(fields[b"metadata"]), **changes})

    with pytest.raises(DecodeError, match=r"expected rpc\.cancel"):
        decode_cancellation(fields)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_timeout_that_nobody_can_wait_for_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidInputError, match="timeout_seconds"):
        encode_request(replace(REQUEST, timeout_seconds=timeout))


def test_a_result_that_json_has_no_word_for_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="validate_risk"):
        answer(RPCResponse("SUCCESS", {"x": float("nan")}))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OverloadedError("x"), "OVERLOADED"),
        (ConnectionLostError("x"), "CONNECTION_LOST"),
        (DeadlineExceededError("x"), "DEADLINE_EXCEEDED"),
        (QuantumTraderError("x"), "QUANTUM_TRADER"),
    ],
)
def test_an_error_has_the_code_of_its_class(error: QuantumTraderError, code: str) -> None:
    assert error_code(error) == code


def test_the_commands_are_those_of_the_design() -> None:
    services: dict[str, set[str]] = {}
    for command, spec in COMMANDS.items():
        services.setdefault(spec.service, set()).add(command)

    assert services == {
        AI: {"get_signal", "get_top_opportunities", "retrain_model"},
        EXEC_RISK: {"validate_risk", "get_position_status", "get_positions", "emergency_stop"},
        ANALYTICS_OS: {"get_system_health", "trigger_retraining", "get_portfolio_state"},
    }


def test_every_request_model_is_a_question_that_leads_to_its_command_and_its_result() -> None:
    commands = commands_by_question(COMMANDS)

    assert sorted(commands.values()) == sorted(COMMANDS)
    for question, command in commands.items():
        (base,) = question.__bases__
        assert issubclass(base, Question)
        assert base.__pydantic_generic_metadata__["args"] == (COMMANDS[command].result_model,)


def test_commands_that_only_read_have_no_effect_and_only_the_stop_is_urgent() -> None:
    assert {command for command, spec in COMMANDS.items() if spec.has_effect} == {
        "emergency_stop",
        "retrain_model",
        "trigger_retraining",
    }
    assert {command for command, spec in COMMANDS.items() if spec.urgent} == {"emergency_stop"}


def test_requests_and_results_keep_the_names_of_the_specification() -> None:
    request = ValidateRiskRequest.model_validate({"symbol": "BTCUSDT", "size_usd": 1000.0, "leverage": 10.0})

    assert request.side == "BUY"
    assert ValidateRiskResult(approved=False, reason="leverage", max_allowed_size=0).model_dump() == {
        "approved": False,
        "reason": "leverage",
        "code": None,
        "max_allowed_size": 0,
    }
    assert GetPositionStatusResult(status="no_position").model_dump() == {"status": "no_position", "position": None}
    assert {"action", "confidence", "model_source"} <= set(GetSignalResult.model_fields)
    assert GetTopOpportunitiesRequest().top_n == 10


@pytest.mark.parametrize("changes", [{"quantity": 0}, {"entry_price": float("nan")}, {"side": "LONG"}, {"symbol": "x"}])
def test_a_position_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    position = {"position_id": "p", "symbol": "BTCUSDT", "side": "BUY", "quantity": 1.0, "entry_price": 100.0}
    Position.model_validate(position)

    with pytest.raises(ValidationError):
        Position.model_validate({**position, **changes})


async def test_calls_and_answers_are_counted_and_invented_commands_become_no_label() -> None:
    clock, transport = SystemClock(), MemoryRpcTransport()
    calling, answering = Metrics("asking-service", clock), Metrics("asked-service", clock)
    cast = Cast(MemoryRpcStage())
    await cast.serve(Doubler(), transport=transport, metrics=answering)
    client = await cast.client(transport=transport, metrics=calling)

    for command in ("double", "double", "invented"):
        await client.call(service="asked-service", command=command, parameters={"number": 1}, timeout=10)
    await client.call(service="nobody", command="double", timeout=0.01)

    await cast.close()
    asked, answered = calling.render()[0].decode(), answering.render()[0].decode()
    for labels in (
        'command="double",service="asking-service",status="success",target="asked-service"} 2.0',
        'command="unknown",service="asking-service",status="error",target="asked-service"} 1.0',
        'command="double",service="asking-service",status="timeout",target="nobody"} 1.0',
    ):
        assert f"rpc_calls_total{{{labels}" in asked
    assert 'rpc_call_seconds_count{command="double",service="asking-service",target="asked-service"} 2.0' in asked
    assert 'command="double",service="asked-service",status="success"} 2.0' in answered
    assert 'rpc_serve_seconds_count{command="double",service="asked-service"} 2.0' in answered
    assert "invented" not in asked + answered
