"""What a call promises, over memory, over Redis and over a cluster alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from shared.clock import ManualClock, SystemClock
from shared.errors import (
    DeadlineExceededError,
    DecodeError,
    InvalidInputError,
    NotRunningError,
    OverloadedError,
    RpcError,
)
from shared.ids import RandomIds
from shared.rpc.client import RpcClient
from shared.rpc.codec import encode_request
from shared.rpc.commands import CommandSpec, GetPositionsRequest, RpcModel
from shared.rpc.deadline import outside_deadline, seconds_left
from shared.rpc.guard import MAX_MESSAGE_BYTES
from shared.rpc.messages import RPCResponse
from shared.rpc.server import RpcServer
from shared.telemetry.trace import TraceContext, current_trace, use_trace
from tests.support.eventually import eventually
from tests.support.rpc_stage import Cast, Doubler, Gate, Number, RpcStage, Square, commands_of, nothing_left, open_stage


@pytest.fixture
async def stage(server_url: str | None) -> AsyncIterator[RpcStage]:
    async with open_stage(server_url) as stage:
        yield stage


@pytest.fixture
async def cast(stage: RpcStage) -> AsyncIterator[Cast]:
    cast = Cast(stage)
    yield cast
    await cast.close()


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_the_handler_gets_the_validated_request_and_its_result_comes_back(cast: Cast) -> None:
    await cast.serve(Doubler())

    response = await cast.ask(await cast.client(), 21)

    assert response == RPCResponse("SUCCESS", {"number": 42})
    assert response.succeeded
    assert response.processing_time_ms is not None
    assert response.processing_time_ms >= 0


async def test_an_rpc_error_arrives_as_code_and_message(cast: Cast) -> None:
    async def refuse(_request: Number) -> Number:
        raise RpcError("NO_MODEL", "no model is ready")

    await cast.serve(refuse)

    response = await cast.ask(await cast.client())

    assert response == RPCResponse("ERROR", error_code="NO_MODEL", error_message="no model is ready")


async def test_an_error_of_ours_arrives_under_the_name_of_its_class(cast: Cast) -> None:
    async def refuse(_request: Number) -> Number:
        raise InvalidInputError("symbol 'X' is not known here")

    await cast.serve(refuse)

    response = await cast.ask(await cast.client())

    assert response == RPCResponse("ERROR", error_code="INVALID_INPUT", error_message="symbol 'X' is not known here")


async def test_an_unexpected_exception_arrives_without_what_it_said(cast: Cast) -> None:
    async def fail(_request: Number) -> Number:
        raise RuntimeError("password is hunter2")

    await cast.serve(fail)

    response = await cast.ask(await cast.client())

    assert response.error_code == "INTERNAL_ERROR"
    assert "hunter2" not in repr(response)
    assert "Traceback" not in repr(response)


async def test_a_result_of_the_wrong_model_is_an_internal_error(cast: Cast) -> None:
    async def answer_nothing(_request: Number) -> None:
        return None

    await cast.serve(answer_nothing)

    assert (await cast.ask(await cast.client())).error_code == "INTERNAL_ERROR"


@pytest.mark.parametrize("error", [TimeoutError, asyncio.CancelledError])
async def test_what_ends_something_inside_the_handler_does_not_end_the_call(
    cast: Cast, error: type[BaseException]
) -> None:
    async def fail(_request: Number) -> Number:
        raise error

    await cast.serve(fail)

    assert (await cast.ask(await cast.client())).error_code == "INTERNAL_ERROR"


async def test_an_unknown_command_is_named(cast: Cast) -> None:
    await cast.serve(Doubler())

    response = await cast.ask(await cast.client(), command="halve")

    assert response.error_code == "UNKNOWN_COMMAND"
    assert "halve" in (response.error_message or "")


@pytest.mark.parametrize("parameters", [{}, {"number": "many"}, {"number": None}])
async def test_parameters_that_break_the_model_never_reach_the_handler(cast: Cast, parameters: dict[str, str]) -> None:
    handler = Doubler()
    await cast.serve(handler)
    client = await cast.client()

    response = await client.call(service=cast.stage.service, command="double", parameters=parameters, timeout=10)

    assert response.error_code == "INVALID_PARAMETERS"
    assert "number" in (response.error_message or "")
    assert handler.asked == []


@pytest.mark.parametrize("number", [float("nan"), [{"x": float("inf")}], object(), 2**70, "x" * MAX_MESSAGE_BYTES])
async def test_parameters_that_cannot_travel_are_refused_at_once(cast: Cast, number: object) -> None:
    client = await cast.client()

    with pytest.raises(InvalidInputError):
        await client.call(service=cast.stage.service, command="double", parameters={"number": number}, timeout=10)
    assert client.waiting == 0


async def test_a_result_that_is_too_large_is_an_internal_error(cast: Cast) -> None:
    async def boast(_request: Number) -> Number:
        raise RpcError("X", "x" * MAX_MESSAGE_BYTES)

    await cast.serve(boast)

    assert (await cast.ask(await cast.client())).error_code == "INTERNAL_ERROR"


async def test_a_handler_may_say_itself_that_it_is_overloaded(cast: Cast) -> None:
    async def refuse(_request: Number) -> Number:
        raise OverloadedError("queue is full")

    await cast.serve(refuse)

    assert (await cast.ask(await cast.client())).error_code == "OVERLOADED"


# -- typed commands ---------------------------------------------------------------------------------------------------


async def test_typed_commands_take_a_question_and_return_its_answer(cast: Cast) -> None:
    await cast.serve(Doubler())
    client = await cast.client()

    answer = await client.ask(Square(number=4), timeout=10)

    assert answer == Number(number=8)


async def test_a_refused_question_raises_the_code_and_an_unanswered_one_that_time_is_up(cast: Cast) -> None:
    async def refuse(_request: Number) -> Number:
        raise RpcError("NO_MODEL", "no model is ready")

    client = await cast.client()
    with pytest.raises(DeadlineExceededError, match="may still have run"):
        await client.ask(Square(number=4), timeout=0.05)

    await cast.serve(refuse)
    with pytest.raises(RpcError, match="no model is ready") as refusal:
        await client.ask(Square(number=4), timeout=10)
    assert refusal.value.code == "NO_MODEL"


async def test_an_answer_of_another_shape_is_refused(cast: Cast, stage: RpcStage) -> None:
    class Word(RpcModel):
        number: str

    async def spell(_request: Number) -> Word:
        return Word(number="many")

    await cast.serve(spell, commands={**commands_of(stage.service), "square": CommandSpec(stage.service, Square, Word)})
    client = await cast.client()

    with pytest.raises(DecodeError, match="result of square: number"):
        await client.ask(Square(number=4), timeout=10)


async def test_a_question_that_belongs_to_no_command_is_refused(cast: Cast) -> None:
    client = await cast.client()

    with pytest.raises(InvalidInputError, match="GetPositionsRequest"):
        await client.ask(GetPositionsRequest(), timeout=10)


# -- deadlines --------------------------------------------------------------------------------------------------------


async def test_without_an_answer_in_time_the_call_ends_as_timeout(cast: Cast) -> None:
    client = await cast.client()

    response = await cast.ask(client, timeout=0.1)

    assert (response.status, response.error_code) == ("TIMEOUT", "TIMEOUT")
    assert client.waiting == 0


async def test_a_request_that_is_late_is_dropped(cast: Cast, stage: RpcStage) -> None:
    handler = Doubler()
    await cast.serve(handler)
    slow = await cast.client("slow", clock=ManualClock(SystemClock().now() - timedelta(hours=1)))
    quick = await cast.client("quick")

    late = await cast.ask(slow, 1, timeout=0.2)
    in_time = await cast.ask(quick, 2)

    assert late.status == "TIMEOUT"
    assert in_time.succeeded
    assert handler.asked == [2]
    await eventually(lambda: nothing_left(stage))


async def test_a_command_that_only_reads_is_cut_off_at_its_deadline(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    # Nobody tells the server that this caller gave up: its inbox and its cancellations go nowhere.
    await stage.put(encode_request(cast.request(1, timeout_seconds=0.2)))

    await eventually(lambda: gate.cancelled == [1] and server.in_flight == 0)


async def test_a_caller_whose_clock_is_ahead_waits_no_longer_than_it_says(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    await cast.serve(gate)
    ahead = SystemClock().now() + timedelta(hours=1)

    await stage.put(encode_request(cast.request(1, timeout_seconds=0.2, timestamp=ahead)))

    await eventually(lambda: gate.cancelled == [1])


async def test_a_command_with_an_effect_is_never_cut_off(cast: Cast) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    client = await cast.client()

    effect = await cast.ask(client, 1, command="deposit", timeout=0.2)
    reading = await cast.ask(client, 2, command="double", timeout=0.2)

    assert (effect.status, reading.status) == ("TIMEOUT", "TIMEOUT")
    await eventually(lambda: gate.cancelled == [2] and server.in_flight == 1)
    gate.open.set()
    await eventually(lambda: server.in_flight == 0)


async def test_deadline_propagation_a_handler_that_asks_others_has_the_time_that_is_left(cast: Cast) -> None:
    seen: list[float | None] = []
    client = await cast.client()

    async def back(request: Number) -> Number:
        seen.append(seconds_left())
        return request

    async def front(_request: Number) -> Number:
        seen.append(seconds_left())
        return Number.model_validate((await cast.ask(client, 7, timeout=60.0)).result)

    await cast.serve(back)
    await cast.serve(front, service="front-service")

    answer = await client.call(service="front-service", command="double", parameters={"number": 1}, timeout=5.0)

    assert answer.result == {"number": 7}
    in_front, in_back = seen
    assert in_front is not None
    assert in_back is not None
    assert 5.0 >= in_front >= in_back > 0
    assert seconds_left() is None


async def test_deadline_propagation_when_nothing_is_left_nobody_is_asked(cast: Cast) -> None:
    handler, answers = Doubler(), list[RPCResponse]()
    client = await cast.client()

    async def front(request: Number) -> Number:
        await eventually(lambda: seconds_left() == 0)
        answers.append(await cast.ask(client, 7, timeout=60.0))
        with outside_deadline():
            answers.append(await cast.ask(client, 8, timeout=60.0))
        return request

    await cast.serve(handler)
    await cast.serve(front, service="front-service")

    # With an effect, so that it is not cut off itself.
    await client.call(service="front-service", command="deposit", parameters={"number": 1}, timeout=0.2)

    await eventually(lambda: len(answers) == 2)
    assert answers[0].status == "TIMEOUT"
    assert "was not asked" in str(answers[0].error_message)
    assert answers[1].succeeded
    assert handler.asked == [8]


# -- the caller -------------------------------------------------------------------------------------------------------


async def test_answers_find_their_calls_whatever_their_order(cast: Cast) -> None:
    arrived: dict[int, asyncio.Event] = {number: asyncio.Event() for number in range(30)}

    async def last_first(request: Number) -> Number:
        arrived[request.number].set()
        if request.number + 1 in arrived:
            await arrived[request.number + 1].wait()
        return Number(number=request.number * 2)

    await cast.serve(last_first)
    client = await cast.client()

    responses = await asyncio.gather(*(cast.ask(client, number) for number in range(30)))

    assert [response.result for response in responses] == [{"number": number * 2} for number in range(30)]


async def test_more_calls_than_travel_together_are_all_answered(cast: Cast) -> None:
    await cast.serve(Doubler(), max_in_flight=1000)
    client = await cast.client()

    responses = await asyncio.gather(*(cast.ask(client, number) for number in range(700)))

    assert [response.result for response in responses] == [{"number": number * 2} for number in range(700)]


async def test_what_is_asked_while_no_replica_lives_is_answered_when_one_starts(cast: Cast, stage: RpcStage) -> None:
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client))

    async def asked() -> bool:
        return await stage.unsettled() == 1

    await eventually(asked)
    await cast.serve(Doubler())

    assert (await call).result == {"number": 42}


async def test_one_request_id_cannot_be_waited_for_twice(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate)
    client = await cast.client()
    first = asyncio.create_task(cast.ask(client, request_id="once"))
    await eventually(lambda: gate.entered)

    with pytest.raises(InvalidInputError, match="once"):
        await cast.ask(client, request_id="once")

    gate.open.set()
    assert (await first).succeeded


async def test_calls_in_hand_end_when_the_caller_stops(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate)
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, 1))
    await eventually(lambda: gate.entered)

    await client.stop()

    assert (await call).error_code == "CLIENT_STOPPED"
    await eventually(lambda: gate.cancelled == [1])
    with pytest.raises(NotRunningError):
        await cast.ask(client)


async def test_the_handler_works_in_the_trace_of_the_call(cast: Cast) -> None:
    seen: list[TraceContext | None] = []

    async def remember(request: Number) -> Number:
        seen.append(current_trace())
        return request

    await cast.serve(remember)
    client = await cast.client()

    with use_trace(TraceContext("trace-7", "event-3")):
        await cast.ask(client, request_id="call-5")
    await cast.ask(client, request_id="call-6")

    assert seen == [TraceContext("trace-7", "call-5"), TraceContext("call-6", "call-6")]


# -- names ------------------------------------------------------------------------------------------------------------


async def test_a_command_of_another_service_cannot_be_registered(cast: Cast, stage: RpcStage) -> None:
    server = cast.server()
    server.register("double", Doubler())

    with pytest.raises(InvalidInputError, match="already"):
        server.register("double", Doubler())
    with pytest.raises(InvalidInputError, match="halve"):
        server.register("halve", Doubler())
    with pytest.raises(InvalidInputError, match="get_positions"):
        RpcServer(stage.transport(), service=stage.service, instance="x", clock=SystemClock()).register(
            "get_positions", Doubler()
        )


@pytest.mark.parametrize(("service", "instance"), [("", "one"), ("a:b", "one"), ("a", ""), ("a", "x y"), ("a", "*")])
async def test_a_name_that_fits_no_stream_is_refused(stage: RpcStage, service: str, instance: str) -> None:
    with pytest.raises(InvalidInputError):
        RpcClient(stage.transport(), service=service, instance=instance, clock=SystemClock(), ids=RandomIds())
    with pytest.raises(InvalidInputError):
        RpcServer(stage.transport(), service=service, instance=instance, clock=SystemClock())


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "{p1}"])
async def test_a_request_id_that_fits_no_key_is_refused(cast: Cast, request_id: str) -> None:
    client = await cast.client()

    with pytest.raises(InvalidInputError, match="request id"):
        await cast.ask(client, request_id=request_id)
