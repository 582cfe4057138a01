"""What all routes have in common: errors in one line, and bodies of a bounded size."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from shared.errors import DecodeError, InvalidInputError, TransientError
from shared.telemetry.masking import mask_text

BAD_REQUEST = 400
TOO_LARGE = 413
WRONG_PARAMETER = 422
DAMAGED = 500
NOT_AVAILABLE = 503
#: The largest thing that anybody has to say here is a whole policy, about 2 KiB.
MAX_BODY_BYTES = 64 * 1024

Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class Answer(BaseModel):
    """Base of what is answered."""

    model_config = ConfigDict(frozen=True)


class Wish(BaseModel):
    """Base of what is asked for: nothing unknown, and no text where a number belongs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class OneLineRoute(APIRoute):
    """Tells what is wrong in one line without secrets, instead of in FastAPI's list."""

    def get_route_handler(self) -> Handle:
        answer = super().get_route_handler()

        async def answer_or_one_line(request: Request) -> Response:
            try:
                return await answer(_BoundedRequest(request.scope, request.receive))
            except RequestValidationError as error:
                problem = mask_text("; ".join(map(_problem, error.errors())))
                raise HTTPException(WRONG_PARAMETER, problem) from error
            except InvalidInputError as error:
                raise HTTPException(WRONG_PARAMETER, mask_text(str(error))) from error
            except TransientError as error:
                raise HTTPException(NOT_AVAILABLE, mask_text(str(error))) from error
            except DecodeError as error:
                raise HTTPException(DAMAGED, mask_text(str(error))) from error

        return answer_or_one_line


class _BoundedRequest(Request):
    """Stops reading a body that is too large."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise HTTPException(TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes")
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body


def _problem(found: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in found["loc"][1:]) or found["loc"][0]
    return f"{name}={_shown(found['input'])} is wrong: {found['msg']}"


def _shown(value: object) -> str:
    try:
        return repr(str(value)[:80])
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "a number too long to show"
