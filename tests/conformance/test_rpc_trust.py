"""Whom a server listens to, and that an answer reaches nobody but who asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import pytest

from shared.clock import SystemClock
from shared.rpc.codec import encode_cancellation, encode_request, encode_response
from shared.rpc.guard import MAX_MESSAGE_BYTES
from shared.rpc.messages import Cancellation, RPCRequest, RPCResponse
from shared.rpc.signing import Signer
from shared.rpc.transport import Reply, Settlement
from tests.support.eventually import eventually
from tests.support.rpc_stage import Cast, Doubler, Gate, RpcStage, nothing_left, open_stage

OURS, THEIRS = Signer(b"o" * 32), Signer(b"t" * 32)


@pytest.fixture
async def stage(server_url: str | None) -> AsyncIterator[RpcStage]:
    async with open_stage(server_url) as stage:
        yield stage


@pytest.fixture
async def cast(stage: RpcStage) -> AsyncIterator[Cast]:
    """All have the same key."""
    cast = Cast(stage, signer=OURS)
    yield cast
    await cast.close()


def signed(fields: dict[bytes, bytes], signer: Signer) -> dict[bytes, bytes]:
    signer.sign(fields)
    return fields


async def forge(stage: RpcStage, fields: Mapping[bytes, bytes]) -> None:
    """Put an answer into the inbox of the client."""
    forger = stage.transport().responder(stage.service, "forger")
    await forger.open()
    await forger.settle([Settlement("0-1", Reply("asking-service", "caller", fields))])
    await forger.close()


# -- never the wrong caller -------------------------------------------------------------------------------------------


async def test_never_the_wrong_caller_two_processes_of_one_service(cast: Cast) -> None:
    await cast.serve(Doubler())
    clients = [await cast.client("first"), await cast.client("second")]

    responses = await asyncio.gather(*(cast.ask(clients[n % 2], n) for n in range(10)))

    assert [response.result for response in responses] == [{"number": n * 2} for n in range(10)]


@pytest.mark.parametrize("command", ["double", "deposit"])
async def test_never_the_wrong_caller_who_takes_the_request_id_of_another_service(cast: Cast, command: str) -> None:
    handler = Doubler()
    await cast.serve(handler)
    one = await cast.client(service="one-service")
    two = await cast.client(service="two-service")

    first = await cast.ask(one, 1, command=command, request_id="once")
    second = await cast.ask(two, 2, command=command, request_id="once")

    assert (first.result, second.result) == ({"number": 2}, {"number": 4})
    assert handler.asked == [1, 2]


async def test_never_the_wrong_caller_an_answer_of_another_service_is_put_aside(cast: Cast, stage: RpcStage) -> None:
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, request_id="once"))
    await eventually(lambda: client.waiting == 1)
    request = cast.request(21, request_id="once")

    await forge(stage, signed(answer_of("liar-service", request), OURS))
    await eventually(lambda: client.refused == {"wrong_service": 1})
    await cast.serve(Doubler())

    assert (await call).result == {"number": 42}


async def test_never_the_wrong_caller_nothing_in_the_parameters_moves_the_answer(cast: Cast, stage: RpcStage) -> None:
    await cast.serve(Doubler())
    client = await cast.client()
    parameters = {"number": 1, "reply_to": "quantum:policy:current", "instance": "thief", "source": "thief"}

    response = await client.call(service=stage.service, command="double", parameters=parameters, timeout=10)

    assert response.result == {"number": 2}


# -- requests ---------------------------------------------------------------------------------------------------------


async def test_a_server_with_a_key_refuses_requests_without_the_right_signature(cast: Cast, stage: RpcStage) -> None:
    handler = Doubler()
    server = await cast.serve(handler)
    await stage.put(encode_request(cast.request(1)))
    await stage.put(signed(encode_request(cast.request(2)), THEIRS))
    changed = signed(encode_request(cast.request(3)), OURS)
    await stage.put({**changed, b"instance": b"thief"})
    await stage.put({**changed, b"payload": changed[b"payload"].replace(b"3", b"4")})

    assert (await cast.ask(await cast.client(), 5)).succeeded

    await eventually(lambda: nothing_left(stage))
    assert server.refused == {"unsigned": 1, "wrong_signature": 3}
    assert handler.asked == [5]


@pytest.mark.parametrize("age", [timedelta(minutes=6), timedelta(minutes=-6)])
async def test_a_server_with_a_key_refuses_requests_of_another_time(
    cast: Cast, stage: RpcStage, age: timedelta
) -> None:
    server = await cast.serve(handler := Doubler())
    old = cast.request(1, timestamp=SystemClock().now() - age, timeout_seconds=3600)
    await stage.put(signed(encode_request(old), OURS))

    await eventually(lambda: server.refused == {"outside_window": 1})
    await eventually(lambda: nothing_left(stage))
    assert handler.asked == []


async def test_a_replayed_request_is_not_run_again_on_any_replica(cast: Cast, stage: RpcStage) -> None:
    server = await cast.serve(handler := Doubler())
    replayed = signed(encode_request(cast.request(1, "deposit", request_id="once")), OURS)
    await stage.put(replayed)
    await eventually(lambda: handler.asked == [1])
    await eventually(lambda: nothing_left(stage))

    await stage.put(replayed)
    await eventually(lambda: nothing_left(stage))
    await server.stop()
    await cast.serve(other := Doubler(), instance="two")
    await stage.put(replayed)
    await eventually(lambda: nothing_left(stage))

    assert (handler.asked, other.asked) == ([1], [])


async def test_a_request_that_was_carried_to_another_service_is_refused(cast: Cast, stage: RpcStage) -> None:
    server = await cast.serve(handler := Doubler())

    await stage.put(signed(encode_request(cast.request(1, service_target="other-service")), OURS))

    await eventually(lambda: server.refused == {"wrong_service": 1})
    assert handler.asked == []


async def test_a_server_with_a_key_hears_no_cancellation_without_it(cast: Cast, stage: RpcStage) -> None:
    server = await cast.serve(gate := Gate())
    asked = cast.request(1)
    await stage.put(signed(encode_request(asked), OURS))
    await eventually(lambda: gate.entered == [1])
    teller = stage.transport().caller("asking-service", "teller")
    fields = encode_cancellation(Cancellation.of(asked), service=stage.service)

    await teller.send(stage.service, requests=(), cancellations=[fields])
    await eventually(lambda: server.refused == {"unsigned": 1})
    assert gate.cancelled == []

    await teller.send(stage.service, requests=(), cancellations=[signed(dict(fields), OURS)])
    await eventually(lambda: gate.cancelled == [1])
    await teller.close()


async def test_a_server_without_a_key_takes_signed_requests_too(cast: Cast, stage: RpcStage) -> None:
    await cast.serve(Doubler(), signer=None)
    client = await Cast(stage).client("unsigned")
    cast.started.append(client)

    assert (await cast.ask(client, 1)).succeeded
    await stage.put(signed(encode_request(cast.request(2)), THEIRS))
    await eventually(lambda: nothing_left(stage))


@pytest.mark.parametrize(
    "fields",
    [
        {b"rubbish": b"1"},
        {b"metadata": b"{}", b"payload": b"{}"},
        {b"metadata": b"not json", b"payload": b"{}", b"instance": b"x"},
        {b"metadata": b"[" * 100_000, b"payload": b"\xff\xfe", b"instance": b"\xff"},
        {b"metadata": b"{}", b"payload": b"x" * (MAX_MESSAGE_BYTES + 1)},
    ],
)
async def test_an_unreadable_request_is_put_aside_and_the_rest_flows(
    stage: RpcStage, fields: dict[bytes, bytes]
) -> None:
    cast = Cast(stage)
    server = await cast.serve(Doubler())
    client = await cast.client()

    await stage.put(fields)

    assert (await cast.ask(client)).succeeded
    await eventually(lambda: nothing_left(stage))
    assert sum(server.refused.values()) == 1
    await cast.close()


# -- answers ----------------------------------------------------------------------------------------------------------


async def test_a_client_with_a_key_refuses_answers_without_the_right_signature(cast: Cast, stage: RpcStage) -> None:
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, request_id="once"))
    await eventually(lambda: client.waiting == 1)
    request = cast.request(21, request_id="once")

    await forge(stage, answer_of(stage.service, request))
    await forge(stage, signed(answer_of(stage.service, request), THEIRS))
    await forge(stage, {b"rubbish": b"1"})
    await eventually(lambda: sum(client.refused.values()) == 3)
    await cast.serve(Doubler())

    assert (await call).result == {"number": 42}
    assert client.refused == {"unsigned": 2, "wrong_signature": 1}


async def test_an_unreadable_answer_is_put_aside_and_the_rest_flows(stage: RpcStage) -> None:
    cast = Cast(stage)
    await cast.serve(Doubler())
    client = await cast.client()

    await forge(stage, {b"rubbish": b"1"})

    assert (await cast.ask(client)).succeeded
    assert client.refused == {"unreadable": 1}
    await cast.close()


def answer_of(service: str, request: RPCRequest) -> dict[bytes, bytes]:
    return encode_response(
        RPCResponse("SUCCESS", {"number": -1}),
        request,
        source=service,
        instance="forger",
        timestamp=SystemClock().now(),
        sequence=1,
    )
