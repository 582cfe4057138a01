"""Events to stream entries and back: two fields, ``metadata`` and ``payload``, each a JSON object.

Versions. An entry says the schema version of its payload. Versions in ``UPCASTERS`` are lifted to the present one on
read. A newer minor version of the present major one (``3.7``) only adds fields, which are ignored; it is read as it
is. Any other version is refused, so that nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

import orjson
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from shared.errors import DecodeError, InvalidInputError
from shared.events.envelope import SCHEMA_VERSION, Event, EventMetadata, EventPayload
from shared.events.registry import spec_for

#: A payload that is larger is a mistake: Redis, the disk buffer and every consumer would have to carry it.
MAX_PAYLOAD_BYTES = 1024 * 1024

#: Lifts ``(event_type, payload)`` of one old version to the present one.
Upcaster: TypeAlias = Callable[[str, dict[str, Any]], dict[str, Any]]

_METADATA = TypeAdapter(EventMetadata)
_MAJOR = SCHEMA_VERSION.partition(".")[0]


def as_it_is(_event_type: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Lift nothing: the payload is of the present version."""
    return payload


#: Schema version -> how its payloads become those of the present version.
UPCASTERS: Mapping[str, Upcaster] = MappingProxyType({"3.0": as_it_is})


def encode(event: Event[Any]) -> dict[str, bytes]:
    """Return the two fields of the entry.

    Raises:
        InvalidInputError: The free-form metadata holds something that JSON has no word for.
    """
    return {
        "metadata": encode_metadata(event.metadata),
        "payload": encode_payload(event.metadata.event_type, event.payload),
    }


def encode_metadata(metadata: EventMetadata) -> bytes:
    """Return ``metadata`` as JSON.

    Raises:
        InvalidInputError: An id holds something that is no text.
    """
    try:
        return orjson.dumps(metadata, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError as error:
        raise InvalidInputError(f"{metadata.event_type} cannot be written as JSON: {_line(error)}") from None


def encode_payload(event_type: str, payload: EventPayload) -> bytes:
    """Return ``payload`` as JSON.

    Raises:
        InvalidInputError: The free-form metadata holds something that JSON has no word for, or it is too large.
    """
    try:
        # Pydantic's serialiser writes straight to bytes and takes the payload alone a third less time than
        # a dict handed to orjson.
        body = payload.__pydantic_serializer__.to_json(payload)
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidInputError(f"{event_type} cannot be written as JSON: {_line(error)}") from None
    if len(body) > MAX_PAYLOAD_BYTES:
        raise InvalidInputError(f"{event_type} takes {len(body)} bytes, {MAX_PAYLOAD_BYTES} are allowed")
    return body


def decode(fields: Mapping[bytes, bytes], *, upcasters: Mapping[str, Upcaster] = UPCASTERS) -> Event[Any]:
    """Return the event of one entry; its metadata says the present version, as its payload now is.

    Raises:
        DecodeError: A field is missing, is no JSON object, breaks the schema, or has an unknown type or version.
            ``raw`` holds the fields.
    """
    try:
        metadata = _METADATA.validate_python(_json_object(fields, b"metadata"))
        spec = spec_for(metadata.event_type)
        lift = _upcaster(metadata.version, upcasters)
        payload = spec.payload.model_validate(lift(metadata.event_type, _json_object(fields, b"payload")))
    except ValidationError as error:
        raise DecodeError(f"entry breaks the schema: {_first_problem(error)}", raw=fields) from None
    except DecodeError as error:
        raise DecodeError(str(error), raw=fields) from None
    if metadata.version != SCHEMA_VERSION:
        metadata = replace(metadata, version=SCHEMA_VERSION)
    return Event(metadata, payload)


def _json_object(fields: Mapping[bytes, bytes], name: bytes) -> dict[str, Any]:
    text = name.decode()
    raw = fields.get(name)
    if raw is None:
        raise DecodeError(f"entry has no field {text!r}; fields: {sorted(fields)}")
    if len(raw) > MAX_PAYLOAD_BYTES:
        raise DecodeError(f"field {text!r} takes {len(raw)} bytes, {MAX_PAYLOAD_BYTES} are allowed")
    try:
        value = orjson.loads(raw)  # refuses NaN, Infinity, and what is not UTF-8
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"field {text!r} is not JSON: {_line(error)}") from None
    if not isinstance(value, dict):
        raise DecodeError(f"field {text!r} must be a JSON object, was {type(value).__name__}")
    return value


def _upcaster(version: str, upcasters: Mapping[str, Upcaster]) -> Upcaster:
    if version in upcasters:
        return upcasters[version]
    major, _, minor = version.partition(".")
    if major == _MAJOR and minor.isdecimal():
        return as_it_is
    raise DecodeError(f"schema version {version!r} cannot be read; known: {', '.join(sorted(upcasters))}")


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "entry"
    value = repr(problem["input"])
    return f"{error.title}.{where}: {problem['msg']}, was {value[:80]}"


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
