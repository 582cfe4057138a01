"""A correlation id comes in, is the trace of all that the request does, and goes out; errors give nothing away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import structlog
from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse

from shared.ids import SeededIds
from shared.telemetry.correlation import CORRELATION_HEADER, Correlation
from shared.telemetry.masking import Masker, use_masker
from shared.telemetry.trace import TraceContext, current_trace, outside_trace, use_trace

CANARY = "canary-7f3a9c"


@pytest.fixture(autouse=True)
def secrets() -> Iterator[None]:
    use_masker(Masker([CANARY]))
    yield
    use_masker(Masker())


def here() -> str | None:
    trace = current_trace()
    return trace.trace_id if trace else None


def app() -> FastAPI:
    api = FastAPI()

    @api.get("/trace")
    async def read_trace() -> dict[str, str | None]:
        with outside_trace():
            apart = await asyncio.create_task(in_a_task())
        return {
            "here": here(),
            "task": await asyncio.create_task(in_a_task()),
            "thread": await asyncio.to_thread(here),
            "apart": apart,
        }

    @api.get("/refused")
    async def refuse() -> None:
        raise HTTPException(422, f"'{CANARY}' is no price, nor is password=hunter2")

    @api.get("/streamed")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield f"half of {CANARY[:5]}"
            yield f"{CANARY[5:]} and the rest"

        return StreamingResponse(parts(), status_code=502, media_type="text/plain")

    @api.get("/fine")
    async def tell() -> PlainTextResponse:
        return PlainTextResponse("password=told-on-purpose")

    @api.get("/broken")
    async def break_down() -> None:
        raise RuntimeError(f"no answer with {CANARY}")

    @api.get("/broken-in-the-middle")
    async def break_off() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "a beginning"
            raise RuntimeError("and no end")

        return StreamingResponse(parts())

    api.add_middleware(Correlation, ids=SeededIds(1))
    return api


async def in_a_task() -> str | None:
    return here()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://desk") as client:
        yield client


async def test_the_callers_id_is_the_trace_in_tasks_and_threads_and_in_the_answer(http: httpx.AsyncClient) -> None:
    answer = await http.get("/trace", headers={CORRELATION_HEADER: "order-17"})

    assert answer.json() == {"here": "order-17", "task": "order-17", "thread": "order-17", "apart": None}
    assert answer.headers[CORRELATION_HEADER] == "order-17"


@pytest.mark.parametrize("given", [None, "", "two words", "a" * 129, "a\x1b[31m", 'x"y'])
async def test_an_id_that_is_missing_or_could_do_harm_is_replaced(http: httpx.AsyncClient, given: str | None) -> None:
    answer = await http.get("/trace", headers={} if given is None else {CORRELATION_HEADER: given})

    made = answer.headers[CORRELATION_HEADER]
    assert re.fullmatch(r"[0-9a-f-]{36}", made)
    assert answer.json()["here"] == made


async def test_requests_at_the_same_time_keep_their_ids_apart(http: httpx.AsyncClient) -> None:
    names = [f"caller-{number}" for number in range(20)]
    answers = await asyncio.gather(*(http.get("/trace", headers={CORRELATION_HEADER: name}) for name in names))

    assert [answer.json()["task"] for answer in answers] == names


async def test_an_error_body_gives_no_secret_away(http: httpx.AsyncClient) -> None:
    answer = await http.get("/refused", headers={CORRELATION_HEADER: "r1"})

    assert answer.status_code == 422
    assert answer.json() == {"detail": "'***' is no price, nor is password=***"}
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.headers[CORRELATION_HEADER] == "r1"


async def test_a_secret_cut_in_two_parts_of_an_error_is_found(http: httpx.AsyncClient) -> None:
    answer = await http.get("/streamed")

    assert (answer.status_code, answer.text) == (502, "half of *** and the rest")


async def test_an_answer_that_is_no_error_is_left_alone(http: httpx.AsyncClient) -> None:
    assert (await http.get("/fine")).text == "password=told-on-purpose"


async def test_an_error_that_nobody_handled_is_answered_and_logged_under_the_id(http: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await http.get("/broken", headers={CORRELATION_HEADER: "r2"})

    assert (answer.status_code, answer.headers[CORRELATION_HEADER]) == (500, "r2")
    assert answer.json() == {"detail": "internal error; the log says why under r2"}
    assert [(line["event"], line["path"]) for line in lines] == [("request_failed", "/broken")]


async def test_an_answer_that_breaks_off_is_told_to_the_server(http: httpx.AsyncClient) -> None:
    with pytest.raises(RuntimeError, match="and no end"):
        await http.get("/broken-in-the-middle")


def test_traces_nest() -> None:
    with use_trace(TraceContext("outer", "cause")):
        with use_trace(TraceContext("inner")), outside_trace():
            assert current_trace() is None
        assert current_trace() == TraceContext("outer", "cause")
    assert current_trace() is None
