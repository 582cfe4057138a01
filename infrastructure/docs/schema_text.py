"""JSON schemas in words: what a person reads in the type column of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_NULL = {"type": "null"}


def alternatives(schema: Schema) -> list[Schema]:
    """Return the schemas of which a value must fit one, without null."""
    return [option for option in schema.get("anyOf", [schema]) if option != _NULL]


def is_nullable(schema: Schema) -> bool:
    """Tell whether null is a value of it."""
    return _NULL in schema.get("anyOf", []) or schema.get("type") == "null"


def reference(schema: Schema) -> str | None:
    """Return the name of the definition that ``schema`` points to."""
    target: str | None = schema.get("$ref")
    return target.rpartition("/")[2] if target else None


def type_text(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return for example ``number, 0 to 1`` or ``[RankedSymbol]``."""
    return " or ".join(_one(option, definitions) for option in alternatives(schema))


def _one(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    if name := reference(schema):
        target = definitions[name]
        return _values(target) if "enum" in target else name
    if "enum" in schema or "const" in schema:
        return _values(schema)
    kind = schema.get("type")
    if kind == "array":
        return f"[{type_text(schema.get('items', {}), definitions)}]"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"{{name: {type_text(values, definitions)}}}" if isinstance(values, Mapping) else "object"
    if schema.get("format") == "date-time":
        return "time"
    return ", ".join([str(kind or "anything"), *_bounds(schema)])


def _values(schema: Schema) -> str:
    values = schema.get("enum") or [schema["const"]]
    return " ".join(f"`{value}`" for value in values)


def _bounds(schema: Schema) -> Iterator[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        yield f"{low:g} to {high:g}"
    elif low is not None:
        yield f"{low:g} or more"
    elif high is not None:
        yield f"{high:g} or less"
    if (above := schema.get("exclusiveMinimum")) is not None:
        yield f"above {above:g}"
