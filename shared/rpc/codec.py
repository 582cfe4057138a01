"""How messages travel: requests and responses as the events ``rpc.request`` and ``rpc.response``.

An entry has the two fields of every event and a third, ``instance``: which process of ``metadata.source`` wrote it. The
server sends its answer to the inbox of that source and instance, and to no other place that a request could name.

What our own processes write is read by hand here, which takes a quarter of the time of the event codec. Whatever looks
different in any way is left to that codec: it knows other versions, and says what is wrong with the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import MAXYEAR, datetime
from operator import itemgetter
from typing import Any, get_args

import orjson

from shared.errors import DecodeError, InvalidInputError
from shared.events.codec import decode
from shared.events.envelope import SCHEMA_VERSION, Event, EventMetadata
from shared.events.v3.system import RpcRequestPayload, RpcResponsePayload, RpcStatus
from shared.rpc.messages import (
    MAX_TIMEOUT_SECONDS,
    Cancellation,
    Fields,
    RPCRequest,
    RPCResponse,
    require_address,
    require_request_id,
)

#: What holds values that nobody looks into is refused, as they could be numbers without a word in JSON.
_FREE_FORM = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS
_STATUSES: frozenset[str] = frozenset(get_args(RpcStatus))
_NOTHING = type(None)
_HARMLESS = frozenset((str, int, bool, _NOTHING))

#: What reading by hand ends with when something is not as usual.
_OTHERWISE = (AttributeError, KeyError, TypeError, ValueError)

_METADATA = itemgetter("event_id", "trace_id", "causation_id", "timestamp", "source", "sequence")
_METADATA_TYPES = frozenset((str, str, cause, str, str, int) for cause in (str, _NOTHING))
_REQUEST = itemgetter("service_target", "command", "parameters", "timeout_seconds", "require_response")
_REQUEST_TYPES = frozenset((str, str, dict, seconds, bool) for seconds in (float, int))
_RESPONSE = itemgetter("request_trace_id", "status", "result", "error_code", "error_message", "processing_time_ms")
_RESPONSE_TYPES = frozenset(
    (str, str, result, code, message, milliseconds)
    for result in (dict, _NOTHING)
    for code in (str, _NOTHING)
    for message in (str, _NOTHING)
    for milliseconds in (float, int, _NOTHING)
)


# -- requests ---------------------------------------------------------------------------------------------------------


def encode_request(request: RPCRequest) -> dict[bytes, bytes]:
    """Return the fields of the entry.

    Raises:
        InvalidInputError: A parameter cannot be written as JSON, or the timeout is not above 0.
    """
    timeout = request.timeout_seconds
    if not 0 < timeout <= MAX_TIMEOUT_SECONDS:
        raise InvalidInputError(
            f"RPC {request.command!r}: timeout_seconds must be above 0 and at most {MAX_TIMEOUT_SECONDS:g}, "
            f"was {timeout}"
        )
    metadata = {
        "event_id": request.request_id,
        "event_type": "rpc.request",
        "trace_id": request.trace_id,
        "causation_id": request.causation_id,
        "timestamp": request.timestamp,
        "source": request.source,
        "sequence": request.sequence,
        "version": SCHEMA_VERSION,
    }
    payload = {
        "service_target": request.service_target,
        "command": request.command,
        "parameters": _free_form(request.parameters, request.command),
        "timeout_seconds": timeout,
        "require_response": request.require_response,
    }
    return _fields(metadata, payload, request.instance)


def decode_request(fields: Fields) -> RPCRequest:
    """Return the request of one entry.

    Raises:
        DecodeError: It is none, or its id, source and instance can name no key and no inbox.
    """
    request = _usual_request(fields) or _any_request(fields)
    try:
        require_address(request.source, request.instance)
        require_request_id(request.request_id)
    except InvalidInputError as error:
        raise DecodeError(str(error), raw=fields) from None
    if request.timestamp.year == MAXYEAR:
        raise DecodeError(f"timestamp {request.timestamp} plus the timeout may be no date", raw=fields)
    return request


def _usual_request(fields: Fields) -> RPCRequest | None:
    try:
        metadata = _usual_metadata(fields[b"metadata"], "rpc.request")
        asked = _REQUEST(_usual_payload(fields[b"payload"]))
        if metadata is None or tuple(map(type, asked)) not in _REQUEST_TYPES:
            return None
        request_id, trace_id, causation_id, timestamp, source, sequence = metadata
        target, command, parameters, timeout, require_response = asked
        if not (target and command and 0 < timeout <= MAX_TIMEOUT_SECONDS):
            return None
        return RPCRequest(
            request_id=request_id,
            service_target=target,
            command=command,
            parameters=parameters,
            timeout_seconds=timeout,
            source=source,
            instance=fields[b"instance"].decode(),
            timestamp=datetime.fromisoformat(timestamp),
            sequence=sequence,
            trace_id=trace_id,
            causation_id=causation_id,
            require_response=require_response,
        )
    except _OTHERWISE:
        return None


def _any_request(fields: Fields) -> RPCRequest:
    event = _event(fields, "rpc.request")
    metadata: EventMetadata = event.metadata
    payload: RpcRequestPayload = event.payload
    return RPCRequest(
        request_id=metadata.event_id,
        service_target=payload.service_target,
        command=payload.command,
        parameters=payload.parameters,
        timeout_seconds=payload.timeout_seconds,
        source=metadata.source,
        instance=fields.get(b"instance", b"").decode("utf-8", "replace"),
        timestamp=metadata.timestamp,
        sequence=metadata.sequence,
        trace_id=metadata.trace_id,
        causation_id=metadata.causation_id,
        require_response=payload.require_response,
    )


# -- responses --------------------------------------------------------------------------------------------------------


def encode_response(
    response: RPCResponse, request: RPCRequest, *, source: str, instance: str, timestamp: datetime, sequence: int
) -> dict[bytes, bytes]:
    """Return the fields of the entry that answers ``request``.

    Raises:
        InvalidInputError: The result cannot be written as JSON.
    """
    metadata = {
        "event_id": f"{request.request_id}:answer",
        "event_type": "rpc.response",
        "trace_id": request.trace_id,
        "causation_id": request.request_id,
        "timestamp": timestamp,
        "source": source,
        "sequence": sequence,
        "version": SCHEMA_VERSION,
    }
    payload = {
        "request_trace_id": request.trace_id,
        "status": response.status,
        "result": None if response.result is None else _free_form(response.result, request.command),
        "error_message": response.error_message,
        "error_code": response.error_code,
        "processing_time_ms": response.processing_time_ms,
    }
    return _fields(metadata, payload, instance)


def decode_response(fields: Fields) -> tuple[str, str, RPCResponse]:
    """Return the id of the request that is answered, the service that answers it, and the answer.

    Raises:
        DecodeError: The entry is no response.
    """
    return _usual_response(fields) or _any_response(fields)


def _usual_response(fields: Fields) -> tuple[str, str, RPCResponse] | None:
    try:
        metadata = _usual_metadata(fields[b"metadata"], "rpc.response")
        said = _RESPONSE(_usual_payload(fields[b"payload"]))
    except _OTHERWISE:
        return None
    if metadata is None or tuple(map(type, said)) not in _RESPONSE_TYPES:
        return None
    trace_id, status, result, error_code, error_message, milliseconds = said
    request_id = metadata[2]
    if request_id is None or not trace_id or status not in _STATUSES:
        return None
    if milliseconds is not None and milliseconds < 0:
        return None
    return request_id, metadata[4], RPCResponse(status, result, error_code, error_message, milliseconds)


def _any_response(fields: Fields) -> tuple[str, str, RPCResponse]:
    event = _event(fields, "rpc.response")
    payload: RpcResponsePayload = event.payload
    if event.metadata.causation_id is None:
        raise DecodeError("rpc.response names no request in causation_id", raw=fields)
    response = RPCResponse(
        status=payload.status,
        result=payload.result,
        error_code=payload.error_code,
        error_message=payload.error_message,
        processing_time_ms=payload.processing_time_ms,
    )
    return event.metadata.causation_id, event.metadata.source, response


# -- cancellations ----------------------------------------------------------------------------------------------------


def encode_cancellation(cancellation: Cancellation, *, service: str) -> dict[bytes, bytes]:
    """Return the fields of the entry that tells the replicas of ``service``; it is no event, so no catalogue has it."""
    metadata = {
        "event_id": cancellation.request_id,
        "event_type": "rpc.cancel",
        "timestamp": cancellation.timestamp,
        "source": cancellation.source,
        "sequence": cancellation.sequence,
    }
    return _fields(metadata, {"service_target": service}, cancellation.instance)


def decode_cancellation(fields: Fields) -> tuple[str, Cancellation]:
    """Return the service that is told, and what it is told.

    Raises:
        DecodeError: The entry is no cancellation.
    """
    try:
        metadata, payload = orjson.loads(fields[b"metadata"]), orjson.loads(fields[b"payload"])
        if metadata["event_type"] != "rpc.cancel":
            raise ValueError(f"it is {metadata['event_type']!r:.80}")
        request_id, source, instance = metadata["event_id"], metadata["source"], fields[b"instance"].decode()
        require_address(source, instance)
        require_request_id(request_id)
        timestamp = datetime.fromisoformat(metadata["timestamp"])
        cancellation = Cancellation(request_id, source, instance, int(metadata["sequence"]), timestamp)
        return str(payload["service_target"]), cancellation
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        raise DecodeError(f"expected rpc.cancel: {error!r:.200}", raw=fields) from None


# -- JSON -------------------------------------------------------------------------------------------------------------


def _fields(metadata: dict[str, Any], payload: dict[str, Any], instance: str) -> dict[bytes, bytes]:
    return {
        b"metadata": orjson.dumps(metadata, option=orjson.OPT_UTC_Z),
        b"payload": orjson.dumps(payload),
        b"instance": instance.encode(),
    }


def _free_form(value: Mapping[str, Any], command: str) -> orjson.Fragment:
    try:
        text = orjson.dumps(value, option=_FREE_FORM)
    except orjson.JSONEncodeError as error:
        raise InvalidInputError(f"RPC {command!r} cannot be written as JSON: {error}") from None
    # orjson writes null for a number that JSON has no word for.
    if b"null" in text and (number := _first_infinite(value)) is not None:
        raise InvalidInputError(f"RPC {command!r} cannot be written as JSON: every number must be finite, was {number}")
    return orjson.Fragment(text)


def _first_infinite(value: Any) -> float | None:
    # A list instead of recursion: the depth is not ours to choose.
    left = [value]
    while left:
        value = left.pop()
        kind = type(value)
        if kind is dict:
            left.extend(value.values())
        elif kind in _HARMLESS:
            continue
        elif isinstance(value, float):
            if not math.isfinite(value):
                return value
        elif isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
    return None


def _usual_metadata(raw: bytes, event_type: str) -> tuple[str, str, str | None, str, str, int] | None:
    """Return id, trace, cause, timestamp, source and sequence; None when anything is not as we write it.

    Raises:
        KeyError, TypeError, ValueError: It is something else altogether.
    """
    values = orjson.loads(raw)
    if values["event_type"] != event_type or values["version"] != SCHEMA_VERSION:
        return None
    found: tuple[str, str, str | None, str, str, int] = _METADATA(values)
    if tuple(map(type, found)) not in _METADATA_TYPES:
        return None
    event_id, trace_id, _, timestamp, source, sequence = found
    if not (event_id and trace_id and source and sequence >= 1 and _is_usual(timestamp)):
        return None
    return found


def _usual_payload(raw: bytes) -> dict[str, Any]:
    payload: dict[str, Any] = orjson.loads(raw)
    if type(payload.get("metadata", payload)) is not dict:  # every event may carry some, and none of ours does
        raise TypeError("metadata must be a JSON object")
    return payload


def _is_usual(timestamp: str) -> bool:
    """Whether it is ``2026-01-01T00:00:00.123456Z``, perhaps without the fraction."""
    length = len(timestamp)
    if length == 27:
        return timestamp[10] == "T" and timestamp[19] == "." and timestamp[26] == "Z"
    return length == 20 and timestamp[10] == "T" and timestamp[19] == "Z"


def _event(fields: Fields, event_type: str) -> Event[Any]:
    event = decode(fields)
    if event.metadata.event_type != event_type:
        raise DecodeError(f"expected {event_type}, was {event.metadata.event_type}", raw=fields)
    return event
