"""What callers and servers say to each other: requests, responses, and that nobody waits any more."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import orjson

from shared.errors import InvalidInputError
from shared.events.v3.system import RpcStatus
from shared.telemetry.masking import mask_text

#: Raw bytes of one entry by field name.
Fields: TypeAlias = Mapping[bytes, bytes]
#: Names a call among all calls of an installation: the service that asks, and its request id. What one service was
#: answered is nothing that another one could ask for.
CallKey: TypeAlias = tuple[str, str]

#: Tells one call from others under the same request id: process, count and time of the call.
Attempt: TypeAlias = tuple[str, int, datetime]

#: Longest timeout of a call.
MAX_TIMEOUT_SECONDS = 86_400.0
#: How long an answer is kept for a repeated request.
RESULT_LIFETIME_SECONDS = 600

_SERVICE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_INSTANCE = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


@dataclass(frozen=True, slots=True)
class RPCRequest:
    """One call on its way.

    Attributes:
        request_id: Names the call; a repeated request keeps it, and the answer carries it.
        service_target: Service that is asked.
        command: Name of the command.
        parameters: JSON object, not yet validated.
        timeout_seconds: How long the caller waits from ``timestamp`` on.
        source: Service that asks.
        instance: Process of that service.
        timestamp: Wall time of the call, aware UTC.
        sequence: Count of the caller's requests, from 1.
        trace_id: Trace that the call belongs to.
        causation_id: Event that caused it; None at the root of a trace.
        require_response: False when nobody waits for the answer.
    """

    request_id: str
    service_target: str
    command: str
    parameters: Mapping[str, Any]
    timeout_seconds: float
    source: str
    instance: str
    timestamp: datetime
    sequence: int
    trace_id: str
    causation_id: str | None = None
    require_response: bool = True

    @property
    def key(self) -> CallKey:
        """What a repeated request has in common with the first one."""
        return self.source, self.request_id

    @property
    def attempt(self) -> Attempt:
        """What a repeated request does not have in common with the first one."""
        return self.instance, self.sequence, self.timestamp

    @property
    def deadline(self) -> datetime:
        """Wall time after which nobody waits for the answer."""
        return self.timestamp + timedelta(seconds=self.timeout_seconds)

    @property
    def fingerprint(self) -> bytes:
        """Tells in a few bytes what is asked, so that another question under the same id is noticed."""
        asked = orjson.dumps([self.command, self.parameters], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(asked).hexdigest()[:32].encode()

    def asks_like(self, command: str, parameters: Mapping[str, Any]) -> bool:
        """Whether this is the same question."""
        return self.command == command and self.parameters == parameters


@dataclass(frozen=True, slots=True)
class RPCResponse:
    """What a call came to.

    Attributes:
        status: SUCCESS, ERROR (the other side said no, or failed), or TIMEOUT (nobody knows whether it was done).
        result: JSON object of the command's result model; None unless SUCCESS.
        error_code: Upper-case code for a program; None on SUCCESS.
        error_message: One line for a person; None on SUCCESS.
        processing_time_ms: Time the handler took; None when it did not run.
    """

    status: RpcStatus
    result: dict[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None
    processing_time_ms: float | None = field(default=None, compare=False)

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCESS"


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A caller's word that it no longer waits; it names one call, not a later one that repeats it.

    Attributes:
        request_id: As in the request.
        source: As in the request.
        instance: As in the request.
        sequence: As in the request.
        timestamp: As in the request.
    """

    request_id: str
    source: str
    instance: str
    sequence: int
    timestamp: datetime

    @classmethod
    def of(cls, request: RPCRequest) -> Cancellation:
        """Return the word that ends the wait for ``request``."""
        return cls(request.request_id, request.source, request.instance, request.sequence, request.timestamp)

    @property
    def key(self) -> CallKey:
        """``RPCRequest.key`` of the request."""
        return self.source, self.request_id

    @property
    def attempt(self) -> Attempt:
        """``RPCRequest.attempt`` of the request."""
        return self.instance, self.sequence, self.timestamp


def error_response(code: str, message: str) -> RPCResponse:
    """Return the answer of somebody who says no."""
    return RPCResponse("ERROR", error_code=code, error_message=mask_text(message))


def require_address(service: str, instance: str) -> None:
    """Check that both can be part of a stream name.

    Raises:
        InvalidInputError: One is empty, too long, or holds a character that is not allowed.
    """
    if not _SERVICE.fullmatch(service):
        raise InvalidInputError(f"service {service!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
    if not _INSTANCE.fullmatch(instance):
        raise InvalidInputError(f"instance {instance!r} must be 1 to 128 letters, digits or any of . _ : @ -")


def require_request_id(request_id: str) -> None:
    """Check that ``request_id`` can be part of a key.

    Raises:
        InvalidInputError: It is empty, too long, or holds a character that is not allowed.
    """
    if not _INSTANCE.fullmatch(request_id):
        raise InvalidInputError(f"request id {request_id!r:.80} must be 1 to 128 letters, digits or any of . _ : @ -")
