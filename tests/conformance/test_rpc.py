"""What RPC promises, over memory and over Redis alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from shared.clock import ManualClock, SystemClock
from shared.errors import InvalidInputError, NotRunningError, OverloadedError, RpcError
from shared.ids import RandomIds
from shared.rpc.client import RpcClient
from shared.rpc.messages import RPCResponse, encode_request
from shared.rpc.server import RpcServer
from shared.telemetry.trace import TraceContext, current_trace, use_trace
from tests.support.eventually import eventually
from tests.support.rpc_stage import Cast, Doubler, MemoryRpcStage, Number, RedisRpcStage, RpcStage


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue("redis_url")


@pytest.fixture
async def stage(url: str | None) -> AsyncIterator[RpcStage]:
    if url is None:
        yield MemoryRpcStage()
        return
    redis = RedisRpcStage(url)
    yield redis
    await redis.connection.stop()


@pytest.fixture
async def cast(stage: RpcStage) -> AsyncIterator[Cast]:
    cast = Cast(stage)
    yield cast
    await cast.close()


async def ask(
    client: RpcClient,
    cast: Cast,
    number: int = 21,
    *,
    command: str = "double",
    timeout: float = 10.0,
    request_id: str | None = None,
) -> RPCResponse:
    return await client.call(
        service=cast.stage.service,
        command=command,
        parameters={"number": number},
        timeout=timeout,
        request_id=request_id,
    )


class Gate:
    """A handler that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered: list[int] = []

    async def __call__(self, request: Number) -> Number:
        self.entered.append(request.number)
        await self.open.wait()
        return Number(number=request.number * 2)


async def test_the_handler_gets_the_validated_request_and_its_result_comes_back(cast: Cast) -> None:
    await cast.serve(Doubler())
    client = await cast.client()

    response = await ask(client, cast, 21)

    assert response == RPCResponse("SUCCESS", {"number": 42})
    assert response.succeeded
    assert response.processing_time_ms is not None
    assert response.processing_time_ms >= 0


async def test_an_rpc_error_arrives_as_code_and_message(cast: Cast) -> None:
    async def refuse(_request: Number) -> Number:
        raise RpcError("NO_MODEL", "no model is ready")

    await cast.serve(refuse)

    response = await ask(await cast.client(), cast)

    assert response == RPCResponse("ERROR", error_code="NO_MODEL", error_message="no model is ready")


async def test_an_error_of_ours_arrives_under_the_name_of_its_class(cast: Cast) -> None:
    async def refuse(_request: Number) -> Number:
        raise InvalidInputError("symbol 'X' is not known here")

    await cast.serve(refuse)

    response = await ask(await cast.client(), cast)

    assert response == RPCResponse("ERROR", error_code="INVALID_INPUT", error_message="symbol 'X' is not known here")


async def test_an_unexpected_exception_arrives_without_what_it_said(cast: Cast) -> None:
    async def fail(_request: Number) -> Number:
        raise RuntimeError("password is hunter2")

    await cast.serve(fail)

    response = await ask(await cast.client(), cast)

    assert response.error_code == "INTERNAL_ERROR"
    assert "hunter2" not in repr(response)
    assert "Traceback" not in repr(response)


async def test_a_result_of_the_wrong_model_is_an_internal_error(cast: Cast) -> None:
    async def answer_nothing(_request: Number) -> None:
        return None

    await cast.serve(answer_nothing)

    assert (await ask(await cast.client(), cast)).error_code == "INTERNAL_ERROR"


async def test_a_timeout_inside_the_handler_is_not_the_callers_timeout(cast: Cast) -> None:
    async def fail(_request: Number) -> Number:
        raise TimeoutError

    await cast.serve(fail)

    assert (await ask(await cast.client(), cast)).error_code == "INTERNAL_ERROR"


async def test_an_unknown_command_is_named(cast: Cast) -> None:
    await cast.serve(Doubler())

    response = await ask(await cast.client(), cast, command="halve")

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


@pytest.mark.parametrize("number", [float("nan"), float("inf"), object()])
async def test_parameters_that_json_has_no_word_for_are_refused_at_once(cast: Cast, number: object) -> None:
    client = await cast.client()

    with pytest.raises(InvalidInputError):
        await client.call(service=cast.stage.service, command="double", parameters={"number": number}, timeout=10)


async def test_without_an_answer_in_time_the_call_ends_as_timeout(cast: Cast) -> None:
    client = await cast.client()

    response = await ask(client, cast, timeout=0.1)

    assert response.status == "TIMEOUT"
    assert response.error_code == "TIMEOUT"


async def test_a_request_that_is_late_is_dropped(cast: Cast, stage: RpcStage) -> None:
    handler = Doubler()
    await cast.serve(handler)
    slow = await cast.client("slow", clock=ManualClock(SystemClock().now() - timedelta(hours=1)))
    quick = await cast.client("quick")

    late = await ask(slow, cast, 1, timeout=0.2)
    in_time = await ask(quick, cast, 2)

    assert late.status == "TIMEOUT"
    assert in_time.succeeded
    assert handler.asked == [2]

    async def nothing_left() -> bool:
        return await stage.unsettled() == 0

    await eventually(nothing_left)


async def test_a_command_that_only_reads_is_cut_off_at_its_deadline(cast: Cast) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    client = await cast.client()

    response = await ask(client, cast, 1, timeout=0.2)

    assert response.status == "TIMEOUT"
    await eventually(lambda: gate.entered == [1] and server.in_flight == 0)


async def test_a_command_with_an_effect_is_never_cut_off(cast: Cast) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    client = await cast.client()

    effect = await ask(client, cast, 1, command="deposit", timeout=0.2)
    reading = await ask(client, cast, 2, command="double", timeout=0.2)

    assert (effect.status, reading.status) == ("TIMEOUT", "TIMEOUT")
    await eventually(lambda: server.in_flight == 1)
    gate.open.set()
    await eventually(lambda: server.in_flight == 0)


@pytest.mark.parametrize("command", ["double", "deposit"])
async def test_a_repeated_request_gets_the_stored_result(cast: Cast, command: str) -> None:
    handler = Doubler()
    await cast.serve(handler)
    client = await cast.client()

    first = await ask(client, cast, 21, command=command, request_id="once")
    second = await ask(client, cast, 21, command=command, request_id="once")

    assert first == second == RPCResponse("SUCCESS", {"number": 42})
    assert handler.asked == [21]


async def test_a_request_repeated_after_a_timeout_gets_the_result_of_the_first_run(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate)
    client = await cast.client()

    first = await ask(client, cast, 21, command="deposit", request_id="once", timeout=0.2)
    again = asyncio.create_task(ask(client, cast, 21, command="deposit", request_id="once"))
    gate.open.set()

    assert first.status == "TIMEOUT"
    assert await again == RPCResponse("SUCCESS", {"number": 42})
    assert gate.entered == [21]


async def test_a_request_that_comes_again_while_it_runs_is_not_run_twice(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    await cast.serve(gate)
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast, 1, request_id="once"))
    await eventually(lambda: gate.entered == [1])

    await stage.put(encode_request(cast.request(1, request_id="once")))
    assert (await ask(client, cast, 2, command="halve")).error_code == "UNKNOWN_COMMAND"  # so the copy was seen
    gate.open.set()

    assert (await call).succeeded
    assert gate.entered == [1]


async def test_another_replica_knows_the_result_of_a_command_with_an_effect(cast: Cast) -> None:
    first_handler, second_handler = Doubler(), Doubler()
    first_server = await cast.serve(first_handler, instance="one")
    client = await cast.client()
    first = await ask(client, cast, 21, command="deposit", request_id="once")
    await first_server.stop()
    await cast.serve(second_handler, instance="two")

    second = await ask(client, cast, 21, command="deposit", request_id="once")

    assert first == second
    assert (first_handler.asked, second_handler.asked) == ([21], [])


async def test_two_replicas_never_run_one_request_with_an_effect_at_the_same_time(cast: Cast, stage: RpcStage) -> None:
    gates = [Gate(), Gate()]
    await cast.serve(gates[0], instance="one")
    await cast.serve(gates[1], instance="two")
    fields = encode_request(cast.request(1, "deposit", request_id="once"))

    for _ in range(6):
        await stage.put(fields)

    async def only_one_left() -> bool:
        return await stage.unsettled() == 1

    await eventually(only_one_left)  # the copies were put aside, the original is being run
    for gate in gates:
        gate.open.set()
    assert len(gates[0].entered + gates[1].entered) == 1


async def test_two_replicas_share_the_requests(cast: Cast) -> None:
    handlers = [Doubler(), Doubler()]
    await cast.serve(handlers[0], instance="one")
    await cast.serve(handlers[1], instance="two")
    client = await cast.client()

    for number in range(20):
        assert (await ask(client, cast, number)).result == {"number": number * 2}

    assert sorted(handlers[0].asked + handlers[1].asked) == list(range(20))
    assert handlers[0].asked
    assert handlers[1].asked


async def test_beyond_the_bound_requests_are_refused_as_overloaded(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate, max_in_flight=1)
    client = await cast.client()
    first = asyncio.create_task(ask(client, cast, 1))
    await eventually(lambda: gate.entered == [1])

    refused = await ask(client, cast, 2)
    gate.open.set()

    assert refused.error_code == "OVERLOADED"
    assert (await first).succeeded
    assert gate.entered == [1]


async def test_an_urgent_command_is_never_refused_for_load(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate, max_in_flight=1)
    client = await cast.client()
    calls = [asyncio.create_task(ask(client, cast, 1))]
    await eventually(lambda: gate.entered == [1])

    calls.append(asyncio.create_task(ask(client, cast, 2, command="halt")))
    await eventually(lambda: gate.entered == [1, 2])
    gate.open.set()

    assert [response.succeeded for response in await asyncio.gather(*calls)] == [True, True]


async def test_a_handler_may_say_itself_that_it_is_overloaded(cast: Cast) -> None:
    async def refuse(_request: Number) -> Number:
        raise OverloadedError("queue is full")

    await cast.serve(refuse)

    assert (await ask(await cast.client(), cast)).error_code == "OVERLOADED"


async def test_answers_find_their_calls_whatever_their_order(cast: Cast) -> None:
    arrived: dict[int, asyncio.Event] = {number: asyncio.Event() for number in range(30)}

    async def last_first(request: Number) -> Number:
        arrived[request.number].set()
        if request.number + 1 in arrived:
            await arrived[request.number + 1].wait()
        return Number(number=request.number * 2)

    await cast.serve(last_first)
    client = await cast.client()

    responses = await asyncio.gather(*(ask(client, cast, number) for number in range(30)))

    assert [response.result for response in responses] == [{"number": number * 2} for number in range(30)]


async def test_two_callers_of_one_service_get_their_own_answers(cast: Cast) -> None:
    await cast.serve(Doubler())
    clients = [await cast.client("first"), await cast.client("second")]

    responses = await asyncio.gather(*(ask(clients[n % 2], cast, n) for n in range(10)))

    assert [response.result for response in responses] == [{"number": n * 2} for n in range(10)]


async def test_what_is_asked_while_no_replica_lives_is_answered_when_one_starts(cast: Cast, stage: RpcStage) -> None:
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast))

    async def asked() -> bool:
        return await stage.unsettled() == 1

    await eventually(asked)
    await cast.serve(Doubler())

    assert (await call).result == {"number": 42}


async def test_a_restarted_replica_answers_what_it_left(cast: Cast, stage: RpcStage) -> None:
    dead = stage.transport().responder(stage.service, "one")
    await dead.open()
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast))
    await eventually(dead.receive)
    await dead.close()

    await cast.serve(Doubler(), instance="one")

    assert (await call).result == {"number": 42}


@pytest.mark.parametrize("command", ["double", "deposit"])
async def test_another_replica_takes_over_what_a_dead_one_left(cast: Cast, stage: RpcStage, command: str) -> None:
    transport = stage.transport(reclaim_after_seconds=0.1)
    dead = transport.responder(stage.service, "one")
    await dead.open()
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast, command=command))
    (taken,) = await eventually(dead.receive)
    await dead.claim("not this one", taken.entry_id)
    await dead.close()

    await cast.serve(Doubler(), instance="two", transport=transport)

    assert (await call).result == {"number": 42}


async def test_what_is_held_is_not_taken_over(stage: RpcStage, cast: Cast) -> None:
    transport = stage.transport(reclaim_after_seconds=0.3)
    busy, idle = transport.responder(stage.service, "one"), transport.responder(stage.service, "two")
    await busy.open()
    await idle.open()
    await stage.put(encode_request(cast.request(1)))
    (held,) = await eventually(busy.receive)

    for _ in range(6):  # together longer than the patience of the other replica
        await busy.hold([held.entry_id])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await idle.receive()
    assert [delivery.entry_id for delivery in await eventually(idle.receive)] == [held.entry_id]
    await busy.close()
    await idle.close()


async def test_a_cancelled_call_leaves_nothing_behind(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate)
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast, 1))
    await eventually(lambda: gate.entered == [1])

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    gate.open.set()

    assert client.waiting == 0
    assert (await ask(client, cast, 2)).result == {"number": 4}
    assert client.waiting == 0


async def test_a_call_that_timed_out_leaves_nothing_behind(cast: Cast) -> None:
    client = await cast.client()

    await ask(client, cast, timeout=0.05)

    assert client.waiting == 0


async def test_one_request_id_cannot_be_waited_for_twice(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate)
    client = await cast.client()
    first = asyncio.create_task(ask(client, cast, request_id="once"))
    await eventually(lambda: gate.entered)

    with pytest.raises(InvalidInputError, match="once"):
        await ask(client, cast, request_id="once")

    gate.open.set()
    assert (await first).succeeded


async def test_calls_in_hand_end_when_the_caller_stops(cast: Cast) -> None:
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast))
    await eventually(lambda: client.waiting == 1)

    await client.stop()

    assert (await call).error_code == "CLIENT_STOPPED"
    with pytest.raises(NotRunningError):
        await ask(client, cast)


async def test_a_stopping_server_lets_handlers_finish(cast: Cast) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast))
    await eventually(lambda: gate.entered)

    stopping = asyncio.create_task(server.stop())
    gate.open.set()
    await stopping

    assert (await call).succeeded


async def test_a_handler_that_does_not_end_is_left_to_the_next_replica(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    server = await cast.serve(gate, drain_seconds=0.05)
    client = await cast.client()
    call = asyncio.create_task(ask(client, cast))
    await eventually(lambda: gate.entered)

    await server.stop()
    assert await stage.unsettled() == 1
    await cast.serve(Doubler(), instance="one")

    assert (await call).result == {"number": 42}


@pytest.mark.parametrize(
    "fields",
    [
        {b"rubbish": b"1"},
        {b"metadata": b"{}", b"payload": b"{}"},
        {b"metadata": b"not json", b"payload": b"{}", b"instance": b"x"},
    ],
)
async def test_an_unreadable_request_is_put_aside_and_the_rest_flows(
    cast: Cast, stage: RpcStage, fields: dict[bytes, bytes]
) -> None:
    await cast.serve(Doubler())
    client = await cast.client()

    await stage.put(fields)

    assert (await ask(client, cast)).succeeded

    async def nothing_left() -> bool:
        return await stage.unsettled() == 0

    await eventually(nothing_left)


async def test_the_handler_works_in_the_trace_of_the_call(cast: Cast) -> None:
    seen: list[TraceContext | None] = []

    async def remember(request: Number) -> Number:
        seen.append(current_trace())
        return request

    await cast.serve(remember)
    client = await cast.client()

    with use_trace(TraceContext("trace-7", "event-3")):
        await ask(client, cast, request_id="call-5")

    assert seen == [TraceContext("trace-7", "call-5")]


async def test_nobody_is_answered_who_does_not_wait(cast: Cast, stage: RpcStage) -> None:
    handler = Doubler()
    await cast.serve(handler)
    inbox = stage.transport().caller("asking-service", "elsewhere")
    await inbox.open()

    await stage.put(encode_request(cast.request(1, require_response=False)))
    await stage.put(encode_request(cast.request(2, request_id="answered")))
    answers = await eventually(inbox.receive)

    assert handler.asked == [1, 2]
    assert len(answers) == 1
    await inbox.close()


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
