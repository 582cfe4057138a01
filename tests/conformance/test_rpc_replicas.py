"""What the replicas of a service owe their callers together, whatever becomes of one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from shared.rpc.codec import decode_response, encode_request
from shared.rpc.messages import RPCResponse
from shared.rpc.transport import Busy, Delivery, Done, Granted, ResponderChannel, Settlement, StoredResult
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


# -- stored replies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["double", "deposit"])
async def test_stored_replies_a_repeated_request_gets_the_answer_of_the_first(cast: Cast, command: str) -> None:
    handler = Doubler()
    await cast.serve(handler)
    client = await cast.client()

    first = await cast.ask(client, 21, command=command, request_id="once")
    second = await cast.ask(client, 21, command=command, request_id="once")

    assert first == second == RPCResponse("SUCCESS", {"number": 42})
    assert handler.asked == [21]


async def test_stored_replies_are_known_to_the_other_replicas_when_the_command_has_an_effect(cast: Cast) -> None:
    first_handler, second_handler = Doubler(), Doubler()
    first_server = await cast.serve(first_handler, instance="one")
    client = await cast.client()
    first = await cast.ask(client, 21, command="deposit", request_id="once")
    await first_server.stop()
    await cast.serve(second_handler, instance="two")

    second = await cast.ask(client, 21, command="deposit", request_id="once")
    third = await cast.ask(client, 21, command="deposit", request_id="once")

    assert first == second == third
    assert (first_handler.asked, second_handler.asked) == ([21], [])


async def test_stored_replies_reach_a_caller_that_was_restarted(cast: Cast) -> None:
    handler = Doubler()
    await cast.serve(handler)
    await cast.ask(await cast.client("before"), 21, command="deposit", request_id="once")

    again = await cast.ask(await cast.client("after"), 21, command="deposit", request_id="once")

    assert again.result == {"number": 42}
    assert handler.asked == [21]


@pytest.mark.parametrize("command", ["double", "deposit"])
async def test_another_question_under_the_same_request_id_is_refused(cast: Cast, command: str) -> None:
    handler = Doubler()
    server = await cast.serve(handler)
    client = await cast.client()
    await cast.ask(client, 21, command=command, request_id="once")

    here = await cast.ask(client, 22, command=command, request_id="once")
    await server.stop()
    await cast.serve(handler, instance="two")
    elsewhere = await cast.ask(client, 22, command="deposit", request_id="once")
    after = await cast.ask(client, 21, command="deposit", request_id="once")

    assert here.error_code == "REQUEST_ID_REUSED"
    if command == "deposit":
        assert elsewhere.error_code == "REQUEST_ID_REUSED"
        assert after.result == {"number": 42}


async def test_another_question_under_the_id_of_one_that_runs_is_refused(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    await cast.serve(gate)
    one, other = await cast.client("one"), await cast.client("other")
    call = asyncio.create_task(cast.ask(one, 1, request_id="once"))
    await eventually(lambda: gate.entered == [1])

    refused = await cast.ask(other, 2, request_id="once")
    gate.open.set()

    assert refused.error_code == "REQUEST_ID_REUSED"
    assert (await call).result == {"number": 2}


async def test_a_question_that_failed_without_an_effect_is_asked_anew(cast: Cast) -> None:
    handler = Doubler()

    async def fail_once(request: Number) -> Number:
        if not handler.asked:
            handler.asked.append(request.number)
            raise ConnectionError
        return await handler(request)

    await cast.serve(fail_once)
    client = await cast.client()

    first = await cast.ask(client, 21, request_id="once")
    second = await cast.ask(client, 21, request_id="once")

    assert first.error_code == "INTERNAL_ERROR"
    assert second.succeeded


async def test_a_request_repeated_after_a_timeout_gets_the_result_of_the_first_run(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate)
    client = await cast.client()

    first = await cast.ask(client, 21, command="deposit", request_id="once", timeout=0.2)
    again = asyncio.create_task(cast.ask(client, 21, command="deposit", request_id="once"))
    gate.open.set()

    assert first.status == "TIMEOUT"
    assert await again == RPCResponse("SUCCESS", {"number": 42})
    assert gate.entered == [21]


async def test_a_caller_that_was_restarted_joins_the_run_that_it_began_before(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate)
    before, after = await cast.client("before"), await cast.client("after")
    first = asyncio.create_task(cast.ask(before, 1, request_id="once"))
    await eventually(lambda: gate.entered == [1])

    again = asyncio.create_task(cast.ask(after, 1, request_id="once"))
    other = await cast.ask(after, 2, command="halve")  # so the repeated one was seen
    gate.open.set()

    assert other.error_code == "UNKNOWN_COMMAND"
    assert (await first).succeeded
    assert (await again).succeeded
    assert gate.entered == [1]


async def test_a_copy_of_a_request_that_runs_is_put_aside(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    await cast.serve(gate)
    fields = encode_request(cast.request(1))
    for _ in range(4):
        await stage.put(fields)

    async def one_left() -> bool:
        return await stage.unsettled() == 1

    await eventually(one_left)
    assert gate.entered == [1]
    gate.open.set()
    await eventually(lambda: nothing_left(stage))


# -- several replicas -------------------------------------------------------------------------------------------------


async def test_several_replicas_share_the_requests(cast: Cast) -> None:
    handlers = [Doubler(), Doubler()]
    await cast.serve(handlers[0], instance="one")
    await cast.serve(handlers[1], instance="two")
    client = await cast.client()

    for number in range(20):
        assert (await cast.ask(client, number)).result == {"number": number * 2}

    assert sorted(handlers[0].asked + handlers[1].asked) == list(range(20))
    assert handlers[0].asked
    assert handlers[1].asked


async def test_several_replicas_never_run_one_request_with_an_effect_at_the_same_time(
    cast: Cast, stage: RpcStage
) -> None:
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


async def test_a_replica_takes_no_more_than_it_can_run_while_another_one_is_free(cast: Cast) -> None:
    gates = [Gate(), Gate()]
    await cast.serve(gates[0], instance="one", max_in_flight=2)
    await cast.serve(gates[1], instance="two", max_in_flight=2)
    client = await cast.client()

    calls = [asyncio.create_task(cast.ask(client, number)) for number in range(4)]
    await eventually(lambda: len(gates[0].entered + gates[1].entered) == 4)
    for gate in gates:
        gate.open.set()

    assert all(response.succeeded for response in await asyncio.gather(*calls))


async def test_overloaded_is_what_who_asks_beyond_the_bound_is_told(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate, max_in_flight=1)
    client = await cast.client()
    first = asyncio.create_task(cast.ask(client, 1))
    await eventually(lambda: gate.entered == [1])

    refused = await cast.ask(client, 2, request_id="second")
    gate.open.set()

    assert refused.error_code == "OVERLOADED"
    assert (await first).succeeded
    assert gate.entered == [1]
    assert (await cast.ask(client, 2, request_id="second")).succeeded


async def test_overloaded_is_never_said_to_an_urgent_command(cast: Cast) -> None:
    gate = Gate()
    await cast.serve(gate, max_in_flight=1)
    client = await cast.client()
    calls = [asyncio.create_task(cast.ask(client, 1))]
    await eventually(lambda: gate.entered == [1])

    calls.append(asyncio.create_task(cast.ask(client, 2, command="halt")))
    await eventually(lambda: gate.entered == [1, 2])
    gate.open.set()

    assert [response.succeeded for response in await asyncio.gather(*calls)] == [True, True]


# -- death and stop ---------------------------------------------------------------------------------------------------


async def test_a_restarted_replica_answers_what_it_left(cast: Cast, stage: RpcStage) -> None:
    dead = stage.transport().responder(stage.service, "one")
    await dead.open()
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client))
    await taken_by(dead)
    await dead.close()

    await cast.serve(Doubler(), instance="one")

    assert (await call).result == {"number": 42}


@pytest.mark.parametrize("command", ["double", "deposit"])
async def test_another_replica_takes_over_what_a_dead_one_left(cast: Cast, stage: RpcStage, command: str) -> None:
    transport = stage.transport(reclaim_after_seconds=0.1)
    dead = transport.responder(stage.service, "one")
    await dead.open()
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, command=command, request_id="once"))
    (taken,) = await taken_by(dead)
    claim = await transport.claims(stage.service).claim(
        ("asking-service", "once"), entry_id=taken.entry_id, fingerprint=b"any"
    )
    await dead.close()

    await cast.serve(Doubler(), instance="two", transport=transport)

    assert claim == Granted()
    assert (await call).result == {"number": 42}


async def test_an_effect_whose_result_was_stored_is_not_repeated_after_a_crash(cast: Cast, stage: RpcStage) -> None:
    transport = stage.transport(reclaim_after_seconds=0.1)
    dead, handler = transport.responder(stage.service, "one"), Doubler()
    await dead.open()
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, 21, command="deposit", request_id="once"))
    (taken,) = await taken_by(dead)
    request = cast.request(21, "deposit", request_id="once")
    claims = transport.claims(stage.service)
    await claims.claim(request.key, entry_id=taken.entry_id, fingerprint=request.fingerprint)
    answer = cast.server("writer")._dispatcher.answer(request, RPCResponse("SUCCESS", {"number": 1}))
    # The result is stored; then the replica dies, before its answer is sent and the request forgotten.
    await dead.settle([Settlement("0-1", result=StoredResult(request.key, answer))])
    await dead.close()

    await cast.serve(handler, instance="two", transport=transport)

    assert (await call).result == {"number": 1}
    assert handler.asked == []


async def test_a_claim_that_a_dead_replica_left_ends_with_its_request(cast: Cast, stage: RpcStage) -> None:
    transport = stage.transport(reclaim_after_seconds=0.1)
    dead, handler = transport.responder(stage.service, "one"), Doubler()
    await dead.open()
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, 21, command="deposit", request_id="once", timeout=0.3))
    (taken,) = await taken_by(dead)
    request = cast.request(21, "deposit", request_id="once")
    await transport.claims(stage.service).claim(request.key, entry_id=taken.entry_id, fingerprint=request.fingerprint)
    await dead.close()
    assert (await call).status == "TIMEOUT"

    await cast.serve(handler, instance="two", transport=transport)
    await eventually(lambda: nothing_left(stage))

    assert (await cast.ask(client, 21, command="deposit", request_id="once")).succeeded
    assert handler.asked == [21]


async def test_what_is_held_is_not_taken_over(stage: RpcStage, cast: Cast) -> None:
    transport = stage.transport(reclaim_after_seconds=0.3)
    busy, idle = transport.responder(stage.service, "one"), transport.responder(stage.service, "two")
    await busy.open()
    await idle.open()
    await idle.take_over(10)  # its patience begins
    await stage.put(encode_request(cast.request(1)))
    (held,) = await taken_by(busy)

    clock = asyncio.get_running_loop()
    until = clock.time() + 1.0  # longer than the patience of the other replica
    while clock.time() < until:
        await busy.hold([held.entry_id])
        assert await idle.take_over(10) == []
        await asyncio.sleep(0)

    left = await eventually(lambda: idle.take_over(10))
    assert [(delivery.entry_id, delivery.taken_over) for delivery in left] == [(held.entry_id, True)]
    await busy.close()
    await idle.close()


async def test_a_replica_that_works_for_long_keeps_its_request(cast: Cast) -> None:
    transport = cast.stage.transport(reclaim_after_seconds=0.2)
    gate, other = Gate(), Doubler()
    await cast.serve(gate, instance="one", transport=transport)
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, 1, command="deposit"))
    await eventually(lambda: gate.entered == [1])
    await cast.serve(other, instance="two", transport=transport)

    # Longer than the patience of the other one, as it would see it.
    responder = transport.responder(cast.stage.service, "three")
    until = asyncio.get_running_loop().time() + 1.0
    while asyncio.get_running_loop().time() < until:
        assert await responder.take_over(10) == []
        await asyncio.sleep(0.02)
    gate.open.set()

    assert (await call).succeeded
    assert other.asked == []
    await responder.close()


async def test_a_claim_is_one_deliverys_until_its_result_is_there(stage: RpcStage) -> None:
    claims, responder = stage.transport().claims(stage.service), stage.transport().responder(stage.service, "one")
    await responder.open()
    key, fields = ("asking-service", "once"), {b"metadata": b"m", b"payload": b"p", b"instance": b"i"}

    assert await claims.claim(key, entry_id="1-1", fingerprint=b"f") == Granted()
    assert await claims.claim(key, entry_id="1-2", fingerprint=b"f") == Busy()
    assert await claims.claim(key, entry_id="1-1", fingerprint=b"f") == Granted()
    assert await claims.claim(("other-service", "once"), entry_id="1-3", fingerprint=b"f") == Granted()
    await claims.keep([key])
    await claims.release(key, entry_id="1-2")  # not its to give up
    assert await claims.claim(key, entry_id="1-2", fingerprint=b"f") == Busy()
    await claims.release(key, entry_id="1-1")
    assert await claims.claim(key, entry_id="1-2", fingerprint=b"f") == Granted()
    await responder.settle([Settlement("1-2", result=StoredResult(key, fields))])
    await claims.release(key, entry_id="1-2")  # the result stays
    assert await claims.claim(key, entry_id="1-4", fingerprint=b"g") == Done(b"f", fields)
    await responder.close()


async def test_a_stopping_server_lets_handlers_finish(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    server = await cast.serve(gate)
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client))
    await eventually(lambda: gate.entered)

    stopping = asyncio.create_task(server.stop())
    gate.open.set()
    await stopping

    assert (await call).succeeded
    assert await stage.unsettled() == 0


async def test_a_handler_that_does_not_end_is_left_to_the_next_replica(cast: Cast, stage: RpcStage) -> None:
    gate = Gate()
    server = await cast.serve(gate, drain_seconds=0.05)
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client))
    await eventually(lambda: gate.entered)

    await server.stop()
    assert await stage.unsettled() == 1
    await cast.serve(Doubler(), instance="one")

    assert (await call).result == {"number": 42}


async def test_nobody_is_answered_who_does_not_wait(cast: Cast, stage: RpcStage) -> None:
    handler = Doubler()
    await cast.serve(handler)
    inbox = stage.transport().caller("asking-service", "elsewhere")
    await inbox.open()

    await stage.put(encode_request(cast.request(1, require_response=False)))
    await stage.put(encode_request(cast.request(2, request_id="answered")))
    (answer,) = await eventually(inbox.receive)

    assert handler.asked == [1, 2]
    assert decode_response(answer)[0] == "answered"
    await inbox.close()


async def taken_by(responder: ResponderChannel) -> Sequence[Delivery]:
    """Let ``responder`` take what is there."""
    return await eventually(lambda: responder.receive(10))
