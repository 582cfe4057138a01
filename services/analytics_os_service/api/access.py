"""Control routes: who may use them, and under which name what they do is written down."""

from __future__ import annotations

import math
import re
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Response
from fastapi.security import HTTPBearer

from services.analytics_os_service.api.routes import BAD_REQUEST, Handle, OneLineRoute
from shared.access import Denial, TokenGate

_STATUS = {Denial.CLOSED: 403, Denial.NO_TOKEN: 401, Denial.WRONG_TOKEN: 401, Denial.THROTTLED: 429}
_PERSON = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}\Z")

#: Shows the token in ``/docs``; who is admitted is decided before anything else is read.
BEARER = Depends(HTTPBearer(auto_error=False, description="The token of QT_API_TOKEN."))


class ControlAccess:
    """The gate of the control routes of one service."""

    def __init__(self, gate: TokenGate, *, owner: str, reads_are_open: bool) -> None:
        """Prepare.

        Args:
            gate: Knows the token.
            owner: Whose token it is; stands in front of the name that a caller gives itself.
            reads_are_open: Whether reading the policy needs no token: nobody but this machine can reach the port.
        """
        self._gate = gate
        self._owner = owner
        self.reads_are_open = reads_are_open

    def route_class(self) -> type[OneLineRoute]:
        """Return the class of routes that only admitted callers get through to."""
        access = self

        class GuardedRoute(OneLineRoute):
            def get_route_handler(self) -> Handle:
                answer = super().get_route_handler()

                async def answer_if_admitted(request: Request) -> Response:
                    # Before the body is read: who is not admitted cannot make us parse anything.
                    request.state.operator = access.admit(request)
                    return await answer(request)

                return answer_if_admitted

        return GuardedRoute

    def admit(self, request: Request) -> str:
        """Return the name under which the caller acts.

        Raises:
            HTTPException: It is not admitted.
        """
        caller = request.client.host if request.client else "unknown"
        denied = self._gate.check(request.headers.get("Authorization"), caller=caller)
        if denied is not None:
            headers = {"WWW-Authenticate": "Bearer"} if _STATUS[denied.kind] == 401 else {}
            if denied.retry_after_seconds:
                headers["Retry-After"] = str(math.ceil(denied.retry_after_seconds))
            raise HTTPException(_STATUS[denied.kind], denied.message, headers=headers)
        person = request.headers.get("X-Operator")
        if person is None:
            return self._owner
        if not _PERSON.match(person):
            raise HTTPException(
                BAD_REQUEST, "X-Operator must be a name of 1 to 64 letters, digits or . _ @ - characters"
            )
        return f"{self._owner} ({person})"


def _operator(request: Request) -> str:
    name: str = request.state.operator
    return name


#: Who sent an admitted request.
Operator = Annotated[str, Depends(_operator)]
