"""Requests and responses, and how they travel: as the events ``rpc.request`` and ``rpc.response``.

An entry has the two fields of every event and a third, ``instance``: which process of ``metadata.source`` wrote it. The
server sends its answer to the inbox of that source and instance, and to no other place that a request could name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from pydantic import ValidationError

from shared.errors import DecodeError, InvalidInputError
from shared.events.codec import decode, encode
from shared.events.envelope import Event, EventMetadata
from shared.events.v3.system import RpcRequestPayload, RpcResponsePayload, RpcStatus
from shared.ids import derive_id

#: Raw bytes of one entry by field name.
Fields: TypeAlias = Mapping[bytes, bytes]

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
    def deadline(self) -> datetime:
        """Wall time after which nobody waits for the answer."""
        return self.timestamp + timedelta(seconds=self.timeout_seconds)


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


def require_address(service: str, instance: str) -> None:
    """Check that both can be part of a stream name.

    Raises:
        InvalidInputError: One is empty, too long, or holds a character that is not allowed.
    """
    if not _SERVICE.fullmatch(service):
        raise InvalidInputError(f"service {service!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
    if not _INSTANCE.fullmatch(instance):
        raise InvalidInputError(f"instance {instance!r} must be 1 to 128 letters, digits or any of . _ : @ -")


def encode_request(request: RPCRequest) -> dict[bytes, bytes]:
    """Return the fields of the entry.

    Raises:
        InvalidInputError: A parameter cannot be written as JSON, or the timeout is not above 0.
    """
    metadata = EventMetadata(
        event_id=request.request_id,
        event_type="rpc.request",
        trace_id=request.trace_id,
        causation_id=request.causation_id,
        timestamp=request.timestamp,
        source=request.source,
        sequence=request.sequence,
    )
    try:
        payload = RpcRequestPayload(
            service_target=request.service_target,
            command=request.command,
            parameters=dict(request.parameters),
            timeout_seconds=request.timeout_seconds,
            require_response=request.require_response,
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidInputError(f"RPC {request.command!r}: {where}: {problem['msg']}") from None
    return _fields(Event(metadata, payload), request.instance)


def decode_request(fields: Fields) -> RPCRequest:
    """Return the request of one entry.

    Raises:
        DecodeError: It is none, or its source and instance name no inbox.
    """
    event = _event(fields, "rpc.request")
    metadata: EventMetadata = event.metadata
    payload: RpcRequestPayload = event.payload
    instance = fields.get(b"instance", b"").decode("utf-8", "replace")
    try:
        require_address(metadata.source, instance)
    except InvalidInputError as error:
        raise DecodeError(str(error), raw=fields) from None
    request = RPCRequest(
        request_id=metadata.event_id,
        service_target=payload.service_target,
        command=payload.command,
        parameters=payload.parameters,
        timeout_seconds=payload.timeout_seconds,
        source=metadata.source,
        instance=instance,
        timestamp=metadata.timestamp,
        sequence=metadata.sequence,
        trace_id=metadata.trace_id,
        causation_id=metadata.causation_id,
        require_response=payload.require_response,
    )
    try:
        _ = request.deadline
    except OverflowError:
        raise DecodeError(f"timestamp {metadata.timestamp} plus the timeout is no date", raw=fields) from None
    return request


def encode_response(
    response: RPCResponse, request: RPCRequest, *, source: str, instance: str, timestamp: datetime, sequence: int
) -> dict[bytes, bytes]:
    """Return the fields of the entry that answers ``request``.

    Raises:
        InvalidInputError: The result cannot be written as JSON.
    """
    metadata = EventMetadata(
        event_id=derive_id("rpc.response", request.request_id),
        event_type="rpc.response",
        trace_id=request.trace_id,
        causation_id=request.request_id,
        timestamp=timestamp,
        source=source,
        sequence=sequence,
    )
    try:
        payload = RpcResponsePayload(
            request_trace_id=request.trace_id,
            status=response.status,
            result=response.result,
            error_message=response.error_message,
            error_code=response.error_code,
            processing_time_ms=response.processing_time_ms,
        )
    except ValidationError as error:
        raise InvalidInputError(f"result of {request.command!r} cannot travel: {error.errors()[0]['msg']}") from None
    return _fields(Event(metadata, payload), instance)


def decode_response(fields: Fields) -> tuple[str, RPCResponse]:
    """Return the id of the request that is answered, and the answer.

    Raises:
        DecodeError: The entry is no response.
    """
    event = _event(fields, "rpc.response")
    payload: RpcResponsePayload = event.payload
    if event.metadata.causation_id is None:
        raise DecodeError("rpc.response names no request in causation_id", raw=fields)
    return event.metadata.causation_id, RPCResponse(
        status=payload.status,
        result=payload.result,
        error_code=payload.error_code,
        error_message=payload.error_message,
        processing_time_ms=payload.processing_time_ms,
    )


def _fields(event: Event[Any], instance: str) -> dict[bytes, bytes]:
    encoded = encode(event)
    return {b"metadata": encoded["metadata"], b"payload": encoded["payload"], b"instance": instance.encode()}


def _event(fields: Fields, event_type: str) -> Event[Any]:
    event = decode(fields)
    if event.metadata.event_type != event_type:
        raise DecodeError(f"expected {event_type}, was {event.metadata.event_type}", raw=fields)
    return event
