"""The published schemas of all events and commands, kept in ``tests/unit/snapshots/schemas.json``.

After an additive change: ``python -m infrastructure.docs.schema_snapshot`` writes the file again. It refuses a
breaking change unless ``--accept-breaking`` is given; then the schema version and its upcaster must change too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from infrastructure.docs.schema_changes import breaking_changes
from shared.events.envelope import EventMetadata
from shared.events.registry import EVENTS
from shared.rpc.commands import COMMANDS

SNAPSHOT = Path(__file__).parents[2] / "tests" / "unit" / "snapshots" / "schemas.json"
_PROSE = {"title", "description", "examples"}
REFRESH = "python -m infrastructure.docs.schema_snapshot"


def current_schemas() -> dict[str, Any]:
    """Return the schema of everything that travels, by event type or ``command request`` / ``command result``."""
    schemas: dict[str, Any] = {"metadata": TypeAdapter(EventMetadata).json_schema()}
    schemas |= {event_type: spec.payload.model_json_schema() for event_type, spec in EVENTS.items()}
    for command, spec in COMMANDS.items():
        schemas[f"{command} request"] = spec.request_model.model_json_schema()
        schemas[f"{command} result"] = spec.result_model.model_json_schema()
    return {name: _without_prose(schema) for name, schema in schemas.items()}


def _without_prose(node: Any) -> Any:
    """Return the schema without what only people read, so that a better description changes no snapshot."""
    if isinstance(node, list):
        return [_without_prose(item) for item in node]
    if not isinstance(node, dict):
        return node
    # The keys of these two are names of fields and models, not words of the schema language.
    named = {"properties", "$defs"}
    return {
        key: {name: _without_prose(inner) for name, inner in value.items()} if key in named else _without_prose(value)
        for key, value in node.items()
        if key not in _PROSE
    }


def published_schemas(path: Path = SNAPSHOT) -> dict[str, Any]:
    """Return the committed schemas."""
    schemas: dict[str, Any] = orjson.loads(path.read_bytes())
    return schemas


def all_breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line per breaking change."""
    for name, schema in old.items():
        if name not in new:
            yield f"{name}: removed"
        else:
            yield from breaking_changes(schema, new[name], name)


def main(arguments: list[str], path: Path = SNAPSHOT) -> int:
    """Write the snapshot to ``path``; return 1 when a breaking change was refused."""
    schemas = current_schemas()
    old = published_schemas(path) if path.exists() else {}
    broken = list(all_breaking_changes(old, schemas))
    if broken and "--accept-breaking" not in arguments:
        sys.stderr.write("\n".join([*broken, "not written; --accept-breaking writes it all the same"]) + "\n")
        return 1
    path.write_bytes(orjson.dumps(schemas, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
