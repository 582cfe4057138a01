"""The parts of RPC by themselves: lanes, the settler, what is remembered, refusals, keys, the time that is left."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from shared.backoff import Backoff
from shared.clock import ManualClock, SystemClock
from shared.errors import ConfigurationError, ConnectionLostError, TransientError
from shared.rpc.answers import AnswerMemory
from shared.rpc.codec import encode_cancellation, encode_request
from shared.rpc.deadline import outside_deadline, seconds_left, use_deadline
from shared.rpc.jobs import CancelledCalls
from shared.rpc.lane import Lane
from shared.rpc.memory_transport import MemoryRpcTransport
from shared.rpc.messages import Cancellation, Fields, RPCRequest
from shared.rpc.refusals import Refusal, Refusals
from shared.rpc.settling import Settler
from shared.rpc.signing import Signer, signer_of
from shared.rpc.transport import Delivery, Settlement, StoredResult
from shared.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.rpc_stage import Cast, Doubler, MemoryRpcStage

AT = datetime(2026, 1, 1, tzinfo=UTC)
QUICK = Backoff(base_seconds=0.001, cap_seconds=0.001)


def request(request_id: str, *, sequence: int = 1) -> RPCRequest:
    return Cast(MemoryRpcStage()).request(1, request_id=request_id, timestamp=AT, sequence=sequence)


# -- the lane ---------------------------------------------------------------------------------------------------------


class Road:
    """A caller's channel that is closed for as long as the test wants; it remembers what travelled."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.is_broken = False
        self.tries = 0
        self.batches: list[list[Fields]] = []
        self.cancellations: list[Fields] = []

    async def open(self) -> None: ...

    async def receive(self) -> Sequence[Fields]:
        return []

    async def close(self) -> None: ...

    async def send(self, service: str, *, requests: Sequence[Fields], cancellations: Sequence[Fields]) -> None:
        self.tries += 1
        if self.is_broken:
            raise ConnectionLostError("the road is broken")
        await self.is_open.wait()
        self.batches.append(list(requests))
        self.cancellations += cancellations


def lane_on(road: Road, waiting: set[str]) -> Lane:
    return Lane(road, "asked", is_waited_for=waiting.__contains__, clock=SystemClock(), backoff=QUICK)


async def test_what_is_asked_while_a_batch_is_on_its_way_makes_the_next_one() -> None:
    road = Road()
    lane = lane_on(road, {"a", "b", "c"})

    lane.send("a", {b"n": b"a"})
    await eventually(lambda: road.tries == 1)
    lane.send("b", {b"n": b"b"})
    lane.send("c", {b"n": b"c"})
    road.is_open.set()

    await eventually(lambda: road.batches == [[{b"n": b"a"}], [{b"n": b"b"}, {b"n": b"c"}]])
    await lane.close(1)


async def test_a_request_that_has_not_left_is_withdrawn_and_one_that_may_have_is_cancelled() -> None:
    road = Road()
    lane = lane_on(road, set())
    lane.send("gone", {b"n": b"gone"})
    await eventually(lambda: road.tries == 1)
    lane.send("here", {b"n": b"here"})

    lane.withdraw("here", lambda: {b"cancel": b"here"})
    lane.withdraw("gone", lambda: {b"cancel": b"gone"})
    road.is_open.set()

    await eventually(lambda: road.cancellations)
    assert road.cancellations == [{b"cancel": b"gone"}]
    assert road.batches == [[{b"n": b"gone"}], []]


async def test_while_the_road_is_broken_only_what_is_still_waited_for_is_tried_again() -> None:
    road, waiting = Road(), {"a", "b"}
    road.is_broken = True
    road.is_open.set()
    lane = lane_on(road, waiting)
    lane.send("a", {b"n": b"a"})
    lane.send("b", {b"n": b"b"})
    await eventually(lambda: road.tries > 2)

    waiting.remove("a")
    tries = road.tries
    await eventually(lambda: road.tries > tries + 1)
    road.is_broken = False

    await eventually(lambda: road.batches)
    assert road.batches == [[{b"n": b"b"}]]
    await lane.close(1)


async def test_a_lane_that_is_closed_gives_up_on_a_broken_road() -> None:
    road = Road()
    lane = lane_on(road, {"a"})
    lane.send("a", {b"n": b"a"})
    await eventually(lambda: road.tries == 1)

    await lane.close(0.01)

    assert road.batches == []


# -- the settler ------------------------------------------------------------------------------------------------------


class Ledger:
    """A responder's channel whose settlements fail for the entries in ``failing``."""

    patience_seconds = 15.0

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.broken = False
        self.tried: list[str] = []
        self.settled: list[str] = []

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[TransientError | None]:
        if self.broken:
            raise RuntimeError("a mistake of ours")
        self.tried += [one.entry_id for one in settlements]
        self.settled += [one.entry_id for one in settlements if one.entry_id not in self.failing]
        return [TransientError("no") if one.entry_id in self.failing else None for one in settlements]


def settler_on(ledger: Ledger, ended: list[str]) -> Settler:
    return Settler(ledger, on_end=ended.append)  # type: ignore[arg-type]  # only settles


async def test_what_cannot_be_settled_is_tried_again_and_keeps_nobody_waiting() -> None:
    ledger, ended = Ledger(), list[str]()
    settler = settler_on(ledger, ended)
    ledger.failing = {"bad"}

    settler.put(Settlement("bad"), seconds=60)
    settler.put(Settlement("good"), seconds=60)
    await eventually(lambda: ended == ["good"])
    settler.put(Settlement("better"), seconds=60)
    await eventually(lambda: ended == ["good", "better"])
    await eventually(lambda: ledger.tried.count("bad") > 2)
    ledger.failing = set()

    await eventually(lambda: ended == ["good", "better", "bad"])
    await settler.close(1)


async def test_a_settlement_is_given_up_when_its_time_is_over_but_never_one_with_a_result() -> None:
    ledger, ended = Ledger(), list[str]()
    settler = settler_on(ledger, ended)
    ledger.failing = {"plain", "stored"}

    settler.put(Settlement("plain"), seconds=0)
    settler.put(Settlement("stored", result=StoredResult(("a", "b"), {})), seconds=0)
    await eventually(lambda: ended == ["plain"])
    await eventually(lambda: ledger.tried.count("stored") > 1)
    ledger.failing = set()

    await eventually(lambda: ended == ["plain", "stored"])
    assert ledger.settled == ["stored"]


async def test_a_mistake_in_a_settlement_ends_it_and_not_the_settler() -> None:
    ledger, ended = Ledger(), list[str]()
    settler = settler_on(ledger, ended)
    ledger.broken = True
    settler.put(Settlement("odd"), seconds=60)
    await eventually(lambda: ended == ["odd"])

    ledger.broken = False
    settler.put(Settlement("next"), seconds=60)

    await eventually(lambda: ledger.settled == ["next"])


async def test_a_settler_that_is_closed_settles_what_it_can() -> None:
    ledger, ended = Ledger(), list[str]()
    settler = settler_on(ledger, ended)
    ledger.failing = {"bad"}
    for entry_id in ("one", "bad", "two"):
        settler.put(Settlement(entry_id), seconds=60)

    await settler.close(0.01)

    assert ended == ["one", "two"]


async def test_too_many_unsettled_requests_make_the_reader_wait() -> None:
    ledger, ended = Ledger(), list[str]()
    settler = settler_on(ledger, ended)
    ledger.failing = {str(number) for number in range(2000)}
    for entry_id in ledger.failing:
        settler.put(Settlement(entry_id), seconds=60)
    waiting = asyncio.create_task(settler.wait_for_room())
    await eventually(lambda: len(ledger.tried) >= 2000)
    assert not waiting.done()

    ledger.failing = set()

    await waiting
    await settler.close(5)


# -- what is remembered -----------------------------------------------------------------------------------------------


def test_answers_are_forgotten_by_age() -> None:
    clock = ManualClock(AT)
    memory = AnswerMemory(clock)
    memory.keep(request("a"), {b"x": b"1"})

    clock.advance(600)
    assert memory.find(("asking-service", "a")) is not None
    clock.advance(1)
    assert memory.find(("asking-service", "a")) is None


def test_answers_are_forgotten_by_number_and_by_size_the_oldest_first() -> None:
    memory = AnswerMemory(ManualClock(AT))
    for number in range(1001):
        memory.keep(request(str(number)), {b"x": b"1"})
    assert memory.find(("asking-service", "0")) is None
    assert memory.find(("asking-service", "1")) is not None

    for number in range(17):
        memory.keep(request(f"large-{number}"), {b"x": b"1" * 1024 * 1024})
    assert memory.find(("asking-service", "large-0")) is None
    assert memory.find(("asking-service", "large-16")) is not None
    assert memory.find(("asking-service", "1000")) is None


def test_an_answer_that_is_kept_again_counts_once() -> None:
    memory = AnswerMemory(ManualClock(AT))
    for _ in range(50):
        memory.keep(request("a"), {b"x": b"1" * 1024 * 1024})

    assert memory.find(("asking-service", "a")) is not None


def test_cancellations_are_remembered_up_to_a_number() -> None:
    cancelled = CancelledCalls()
    for number in range(10_001):
        cancelled.add(Cancellation.of(request(str(number))))

    assert request("0") not in cancelled
    assert request("1") in cancelled
    assert request("1", sequence=2) not in cancelled


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals_are_all_counted_and_told_once_a_minute_per_cause() -> None:
    clock = ManualClock(AT)
    metrics = Metrics("asked-service", SystemClock())
    refusals = Refusals("requests", service="asked-service", clock=clock, metrics=metrics)

    with capture_logs() as lines:
        for _ in range(100):
            refusals.note(Refusal("unsigned", "no key"))
        refusals.note(Refusal("too_large", "2 MB"))
        clock.advance(60)
        refusals.note(Refusal("unsigned", "no key"))

    assert [(line["event"], line["cause"], line["count"]) for line in lines] == [
        ("rpc_requests_refused", "unsigned", 1),
        ("rpc_requests_refused", "too_large", 1),
        ("rpc_requests_refused", "unsigned", 100),
    ]
    assert refusals.counts == {"unsigned": 101, "too_large": 1}
    rendered = metrics.render()[0].decode()
    assert 'rpc_requests_refused_total{cause="unsigned",service="asked-service"} 101.0' in rendered


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="QT_RPC_KEY must have at least 32 bytes, has 31"):
        Signer(b"k" * 31)
    assert signer_of(None) is None
    assert signer_of(SecretStr("k" * 32)) is not None


@pytest.mark.parametrize("key", [b"k" * 32, b"k" * 64, b"k" * 65, b"\xff" * 200])
def test_the_signature_is_the_hmac_of_the_fields_with_their_lengths(key: bytes) -> None:
    fields = {b"metadata": b"meta", b"payload": b"pay", b"instance": b"one"}
    Signer(key).sign(fields)

    assert fields[b"signature"] == hmac.new(key, b"4 3 3 metapayone", "sha256").hexdigest().encode()
    assert Signer(key).problem(fields) is None
    assert Signer(key).problem({b"metadata": b"m"}) == "unsigned"


# -- the time that is left --------------------------------------------------------------------------------------------


async def test_the_time_that_is_left_is_inherited_and_can_be_left_behind() -> None:
    async def seen() -> float | None:
        return seconds_left()

    assert seconds_left() is None
    with use_deadline(asyncio.get_running_loop().time() + 5):
        assert 4 < (await asyncio.create_task(seen()) or 0) <= 5
        with outside_deadline():
            assert await asyncio.create_task(seen()) is None
        with use_deadline(0):
            assert seconds_left() == 0
    assert seconds_left() is None


async def test_the_memory_transport_lets_a_late_ear_hear_what_was_said_lately() -> None:
    transport = MemoryRpcTransport()
    transport.put_cancellation("asked", {b"n": b"1"})

    feed = transport.cancellations("asked")

    assert await feed.receive() == [{b"n": b"1"}]
    await feed.close()
    transport.put_cancellation("asked", {b"n": b"2"})


async def test_a_call_that_is_cancelled_before_its_first_step_ends_in_an_orderly_way() -> None:
    cast = Cast(MemoryRpcStage())
    handler = Doubler()
    server = await cast.serve(handler)
    asked = cast.request(1, request_id="once")

    # In one breath, so that the handler's task has not begun.
    server._accept_all([Delivery("0-1", encode_request(asked))])
    server._cancel(encode_cancellation(Cancellation.of(asked), service=cast.stage.service))
    assert server.in_flight == 1

    await eventually(lambda: server.in_flight == 0)
    assert handler.asked == []
    assert (await cast.ask(await cast.client(), 1, request_id="once")).succeeded
    await cast.close()


async def test_a_request_that_upsets_the_server_leaves_the_others_alone() -> None:
    cast = Cast(MemoryRpcStage())
    server = await cast.serve(Doubler())
    del server._answers  # a mistake of ours
    client = await cast.client()

    assert (await cast.ask(client, timeout=0.05)).status == "TIMEOUT"
    assert await cast.stage.unsettled() == 0
    await cast.close()
