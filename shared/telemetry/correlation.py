"""The HTTP edge of a trace: the caller's id comes in and goes out again, and no answer gives a secret away."""

from __future__ import annotations

import re

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.ids import IdSource
from shared.telemetry.masking import mask_bytes
from shared.telemetry.trace import TraceContext, use_trace

log = structlog.get_logger(__name__)

CORRELATION_HEADER = "X-Correlation-ID"
#: What a caller may send as its id; anything else is replaced, so that no header reaches a log unchecked.
_CORRELATION_ID = re.compile(r"\A[A-Za-z0-9._:-]{1,128}\Z")
_FIRST_ERROR_STATUS = 400


class Correlation:
    """Puts each request under the caller's id as trace id, or a new one, and tells it in every answer.

    An error that nobody handled is logged under that id and answered with it: the framework's own answer would come
    from outside of this layer, without one. Bodies of errors are masked, because messages of exceptions get into them.
    """

    def __init__(self, app: ASGIApp, ids: IdSource) -> None:
        """Wrap ``app``.

        Args:
            app: What answers.
            ids: Makes ids for callers that send none.
        """
        self._app = app
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(CORRELATION_HEADER, "")
        correlation_id = given if _CORRELATION_ID.match(given) else self._ids.new()
        answer = _Answer(send, correlation_id)
        with use_trace(TraceContext(correlation_id)):
            try:
                await self._app(scope, receive, answer.send)
            except Exception:
                log.exception("request_failed", method=scope["method"], path=scope["path"])
                if answer.has_begun:
                    raise
                body = {"detail": f"internal error; the log says why under {correlation_id}"}
                await JSONResponse(body, status_code=500)(scope, receive, answer.send)


class _Answer:
    """One answer on its way out. That of an error is held back until it is complete: masking may change its length."""

    def __init__(self, send: Send, correlation_id: str) -> None:
        self.has_begun = False
        self._send = send
        self._correlation_id = correlation_id
        self._held: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            MutableHeaders(scope=message)[CORRELATION_HEADER] = self._correlation_id
            if _may_tell_a_secret(message):
                self._held = message
                return
        if self._held is None:
            await self._send(message)
        elif message["type"] == "http.response.body":
            await self._hold(self._held, message)

    async def _hold(self, start: Message, message: Message) -> None:
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        body = mask_bytes(self._body)
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _may_tell_a_secret(start: Message) -> bool:
    content_type = Headers(raw=start["headers"]).get("content-type", "")
    return start["status"] >= _FIRST_ERROR_STATUS and content_type.startswith(("application/", "text/"))
