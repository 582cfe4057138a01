"""What becomes of a call that nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from shared.rpc.client import RpcClient
from shared.rpc.codec import decode_cancellation, encode_cancellation, encode_request
from shared.rpc.messages import Cancellation, RPCResponse
from tests.support.eventually import eventually
from tests.support.rpc_stage import Cast, Doubler, Gate, Number, RpcStage, nothing_left, open_stage


@pytest.fixture
async def stage(server_url: str | None) -> AsyncIterator[RpcStage]:
    async with open_stage(server_url) as stage:
        yield stage


@pytest.fixture
async def cast(stage: RpcStage) -> AsyncIterator[Cast]:
    cast = Cast(stage)
    yield cast
    await cast.close()


async def begun(cast: Cast, client: RpcClient, gates: list[Gate], command: str) -> asyncio.Task[RPCResponse]:
    """Return a call whose handler is at work."""
    call = asyncio.create_task(cast.ask(client, 1, command=command, request_id="once"))
    await eventually(lambda: [gate for gate in gates if gate.entered])
    return call


async def cancel(call: asyncio.Task[RPCResponse]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def tell(stage: RpcStage, cancellation: Cancellation) -> None:
    """Say it in the caller's name."""
    teller = stage.transport().caller("asking-service", "teller")
    fields = encode_cancellation(cancellation, service=stage.service)
    await teller.send(stage.service, requests=(), cancellations=[fields])
    await teller.close()


async def test_cancellation_ends_the_handler_on_whichever_replica_it_runs(cast: Cast, stage: RpcStage) -> None:
    gates = [Gate(), Gate(), Gate()]
    for number, gate in enumerate(gates):
        await cast.serve(gate, instance=f"replica-{number}")
    client = await cast.client()
    call = await begun(cast, client, gates, "double")

    await cancel(call)

    await eventually(lambda: [one for gate in gates for one in gate.cancelled] == [1])
    await eventually(lambda: nothing_left(stage))
    assert client.waiting == 0
    for gate in gates:
        gate.open.set()
    assert (await cast.ask(client, 2)).result == {"number": 4}


async def test_cancellation_comes_with_a_timeout_too(cast: Cast, stage: RpcStage) -> None:
    client = await cast.client()
    feed = stage.transport().cancellations(stage.service)

    response = await cast.ask(client, timeout=0.05, request_id="once")
    (heard,) = await eventually(feed.receive)

    assert response.status == "TIMEOUT"
    service, cancellation = decode_cancellation(heard)
    assert service == stage.service
    assert cancellation.key == ("asking-service", "once")
    await feed.close()


async def test_cancellation_lets_a_command_with_an_effect_run_to_its_end(cast: Cast) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    client = await cast.client()
    effect = await begun(cast, client, [gate], "deposit")
    reading = asyncio.create_task(cast.ask(client, 2))
    await eventually(lambda: gate.entered == [1, 2])

    await cancel(effect)
    await cancel(reading)
    await eventually(lambda: gate.cancelled == [2])  # so the other word was heard, too
    assert server.in_flight == 1
    gate.open.set()

    assert (await cast.ask(client, 1, command="deposit", request_id="once")).result == {"number": 2}
    assert gate.entered == [1, 2]


@pytest.mark.parametrize("command", ["double", "deposit"])
async def test_cancellation_drops_what_was_not_begun_and_leaves_its_id_free(
    cast: Cast, stage: RpcStage, command: str
) -> None:
    handler = Doubler()
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, 1, command=command, request_id="once"))

    async def asked() -> bool:
        return await stage.unsettled() == 1

    await eventually(asked)
    await cancel(call)
    feed = stage.transport().cancellations(stage.service)
    await eventually(feed.receive)
    await feed.close()

    await cast.serve(handler)
    # The server may read a request before the word that ends it: then it is cut off, or runs when it has an effect.
    await eventually(lambda: nothing_left(stage))
    assert handler.asked in ([], [1])
    assert (await cast.ask(client, 1, command=command, request_id="once")).result == {"number": 2}
    assert handler.asked == [1]


async def test_cancellation_that_is_heard_first_keeps_its_request_from_being_run(cast: Cast, stage: RpcStage) -> None:
    handler, gate = Doubler(), Gate()
    server = await cast.serve(gate)
    running = cast.request(1)
    await stage.put(encode_request(running))
    await eventually(lambda: gate.entered == [1])
    to_come = cast.request(2, "deposit", request_id="once")

    await tell(stage, Cancellation.of(to_come))
    await tell(stage, Cancellation.of(running))
    await eventually(lambda: gate.cancelled == [1])  # so the word before was heard, too
    await stage.put(encode_request(to_come))
    await eventually(lambda: nothing_left(stage))

    assert gate.entered == [1]
    await server.stop()
    await cast.serve(handler, instance="two")
    assert (await cast.ask(await cast.client(), 2, command="deposit", request_id="once")).succeeded


async def test_cancellation_of_one_call_does_not_touch_a_later_one_with_the_same_id(
    cast: Cast, stage: RpcStage
) -> None:
    gate = Gate()
    await cast.serve(gate)
    first, again = cast.request(1, request_id="once", sequence=1), cast.request(1, request_id="once", sequence=2)
    for request in (first, again):
        await stage.put(encode_request(request))
    await eventually(lambda: gate.entered == [1])

    await tell(stage, Cancellation.of(first))

    async def one_left() -> bool:
        return await stage.unsettled() == 1

    await eventually(one_left)
    assert gate.cancelled == []
    await tell(stage, Cancellation.of(again))
    await eventually(lambda: gate.cancelled == [1])


async def test_cancellation_leaves_who_asks_again_meanwhile_an_answer(cast: Cast, stage: RpcStage) -> None:
    ending, may_end, entered = asyncio.Event(), asyncio.Event(), list[int]()

    async def end_slowly(request: Number) -> Number:
        entered.append(request.number)
        if len(entered) > 1:
            return Number(number=2)
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()
        return request

    server = await cast.serve(end_slowly)
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, 1, request_id="once"))
    await eventually(lambda: entered)
    await cancel(call)
    await ending.wait()

    again = asyncio.create_task(cast.ask(client, 1, request_id="once"))
    assert (await cast.ask(client, 1, command="halve")).error_code == "UNKNOWN_COMMAND"  # so the other was seen
    may_end.set()

    assert (await again).result == {"number": 2}
    assert server.in_flight == 0


async def test_cancellation_takes_only_the_word_of_who_asked(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    await cast.serve(gate)
    asked, sign = cast.request(1, request_id="once"), cast.request(2)
    await stage.put(encode_request(asked))
    await stage.put(encode_request(sign))
    await eventually(lambda: gate.entered == [1, 2])

    await tell(stage, Cancellation.of(replace(asked, source="another-service")))
    await tell(stage, Cancellation.of(replace(asked, instance="another-process")))
    await tell(stage, Cancellation.of(sign))
    await eventually(lambda: gate.cancelled == [2])

    async def one_left() -> bool:
        return await stage.unsettled() == 1

    await eventually(one_left)
    gate.open.set()


async def test_cancellation_goes_down_the_chain(cast: Cast) -> None:
    gate, client = Gate(), await cast.client()

    async def front(_request: Number) -> Number:
        return Number.model_validate((await cast.ask(client, 7)).result)

    await cast.serve(gate)
    await cast.serve(front, service="front-service")
    call = asyncio.create_task(
        client.call(service="front-service", command="double", parameters={"number": 1}, timeout=10)
    )
    await eventually(lambda: gate.entered == [7])

    await cancel(call)

    await eventually(lambda: gate.cancelled == [7])
    assert client.waiting == 0


async def test_cancellation_that_nobody_can_read_is_counted_and_the_rest_is_heard(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    client = await cast.client()
    call = await begun(cast, client, [gate], "double")
    teller = stage.transport().caller("asking-service", "teller")

    await teller.send(stage.service, requests=(), cancellations=[{b"metadata": b"[]"}, {b"rubbish": b"1"}])
    await cancel(call)

    await eventually(lambda: gate.cancelled == [1])
    assert server.refused == {"unreadable": 2}
    await teller.close()
