"""Which changes of a JSON schema break those who speak the old one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infrastructure.docs.schema_text import Schema, reference

#: A bound, and whether a larger value lets fewer values through.
_BOUNDS = {
    "minimum": True,
    "exclusiveMinimum": True,
    "minLength": True,
    "minItems": True,
    "maximum": False,
    "exclusiveMaximum": False,
    "maxLength": False,
    "maxItems": False,
}
#: Rules of which any other value than the old one, or a new one, lets fewer values through.
_RULES = ("pattern", "format")


def breaking_changes(old: Schema, new: Schema, name: str) -> Iterator[str]:
    """Yield one line per change that an old producer or an old consumer would trip over, each naming the field.

    Args:
        old: Schema of a model as it was published, with its ``$defs``.
        new: Schema of the model now.
        name: What the lines call it, for example ``signal.generated``.
    """
    yield from _object(old, new, old.get("$defs", {}), new.get("$defs", {}), name)


def _object(
    old: Schema, new: Schema, old_defs: Mapping[str, Schema], new_defs: Mapping[str, Schema], name: str
) -> Iterator[str]:
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    old_required, new_required = set(old.get("required", ())), set(new.get("required", ()))
    for field, old_field in old_fields.items():
        path = f"{name}.{field}"
        if field not in new_fields:
            yield f"{path}: removed, and old consumers read it"
            continue
        if field in new_required - old_required:
            yield f"{path}: now required, and old producers may leave it out"
        if field in old_required - new_required:
            yield f"{path}: no longer required, and old consumers count on it"
        yield from _value(old_field, new_fields[field], old_defs, new_defs, path)
    for field in new_fields.keys() - old_fields.keys():
        if field in new_required:
            yield f"{name}.{field}: new and required, and old producers do not know it"


def _value(
    old: Schema, new: Schema, old_defs: Mapping[str, Schema], new_defs: Mapping[str, Schema], path: str
) -> Iterator[str]:
    """Every alternative of the old value must be let through by one of the new alternatives."""
    new_options = [_resolved(option, new_defs) for option in new.get("anyOf", [new])]
    for old_option in old.get("anyOf", [old]):
        resolved = _resolved(old_option, old_defs)
        candidates = [list(_narrowed(resolved, option, old_defs, new_defs, path)) for option in new_options]
        if all(candidates):
            yield from min(candidates, key=len)


def _narrowed(
    old: Schema, new: Schema, old_defs: Mapping[str, Schema], new_defs: Mapping[str, Schema], path: str
) -> Iterator[str]:
    before, now = old.get("type"), new.get("type")
    if now is not None and before != now and (before, now) != ("integer", "number"):
        yield f"{path}: type narrowed from {before or 'anything'} to {now}"
        return
    yield from _narrowed_values(old, new, path)
    yield from _narrowed_rules(old, new, path)
    if "properties" in old:
        yield from _object(old, new, old_defs, new_defs, path)
    for inner in ("items", "additionalProperties"):
        if isinstance(new.get(inner), Mapping):
            before = old.get(inner)
            yield from _value(
                before if isinstance(before, Mapping) else {}, new[inner], old_defs, new_defs, f"{path}[]"
            )


def _narrowed_values(old: Schema, new: Schema, path: str) -> Iterator[str]:
    now = _enumerated(new)
    if now is None:
        return
    before = _enumerated(old)
    if before is None:
        yield f"{path}: now only {', '.join(map(repr, now))}"
        return
    for value in before:
        if value not in now:
            yield f"{path}: value {value!r} removed"


def _narrowed_rules(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for bound, larger_is_narrower in _BOUNDS.items():
        before, now = old.get(bound), new.get(bound)
        if now is None or before == now:
            continue
        if before is None or (now > before) is larger_is_narrower:
            yield f"{path}: {bound} {'added' if before is None else f'changed from {before}'}, now {now}"
    for rule in _RULES:
        if new.get(rule) not in (None, old.get(rule)):
            yield f"{path}: {rule} changed from {old.get(rule)!r} to {new[rule]!r}"


def _enumerated(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


def _resolved(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    name = reference(schema)
    return definitions[name] if name else schema
