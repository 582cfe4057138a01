"""The committed documents and schemas are those of the code, and a schema does not break unnoticed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from infrastructure.docs import schema_snapshot
from infrastructure.docs.events_page import asyncapi, events_page, pages
from infrastructure.docs.schema_changes import breaking_changes
from infrastructure.docs.schema_snapshot import REFRESH, all_breaking_changes, current_schemas, published_schemas
from shared.events.registry import EVENTS
from shared.rpc.commands import COMMANDS


@pytest.mark.parametrize("path", list(pages()), ids=lambda path: path.name)
def test_the_committed_document_is_what_the_code_says(path: Path) -> None:
    assert path.read_bytes() == pages()[path], "run: python -m infrastructure.docs.events_page"


def test_no_published_schema_is_broken() -> None:
    assert list(all_breaking_changes(published_schemas(), current_schemas())) == []


def test_the_published_schemas_are_up_to_date() -> None:
    assert published_schemas() == current_schemas(), f"an additive change; run: {REFRESH}"


def test_the_page_tells_every_event_field_and_command() -> None:
    page = events_page()

    for event_type, spec in EVENTS.items():
        section = page.split(f"### `{event_type}`\n")[1].split("\n### ")[0]
        assert [name for name in spec.payload.model_fields if f"| `{name}` |" not in section] == []
    assert [command for command in COMMANDS if f"### `{command}`" not in page] == []
    assert "|  |\n" not in page  # every field has a meaning


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi()

    targets = list(references(document))

    assert targets
    for target in targets:
        node: Any = document
        for part in target.removeprefix("#/").split("/"):
            node = node[part]
        assert isinstance(node, dict)


def test_the_asyncapi_document_has_a_channel_for_every_event_stream() -> None:
    addresses = {channel["address"] for channel in asyncapi()["channels"].values()}

    assert addresses == {f"quantum:stream:{event_type}" for event_type in EVENTS if not event_type.startswith("rpc.")}


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["side", "size"],
    "properties": {
        "side": {"enum": ["BUY", "SELL"], "type": "string"},
        "size": {"type": "number", "minimum": 0, "maximum": 10},
        "count": {"type": "integer"},
        "price": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}], "default": None},
        "symbol": {"type": "string", "pattern": "^[A-Z]+$"},
        "ranks": {"type": "array", "items": {"$ref": "#/$defs/Rank"}},
        "weights": {"type": "object", "additionalProperties": {"type": "number"}},
        "free": {"type": "object", "additionalProperties": True},
    },
    "$defs": {
        "Rank": {"type": "object", "required": ["score"], "properties": {"score": {"type": "number"}}},
    },
}


def altered(path: str, value: Any) -> dict[str, Any]:
    """Return the schema with one node replaced, or removed when ``value`` is ``...``."""
    schema = copy.deepcopy(SCHEMA)
    *parents, last = path.split("/")
    node: Any = schema
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return schema


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("properties/count", ..., "e.count: removed"),
        ("required", ["side", "size", "count"], "e.count: now required"),
        ("required", ["side"], "e.size: no longer required"),
        ("properties/side/enum", ["BUY"], "e.side: value 'SELL' removed"),
        ("properties/side", {"const": "BUY", "type": "string"}, "e.side: value 'SELL' removed"),
        ("properties/symbol/enum", ["BTC"], "e.symbol: now only 'BTC'"),
        ("properties/size/minimum", 1, "e.size: minimum changed from 0, now 1"),
        ("properties/size/maximum", 9, "e.size: maximum changed from 10, now 9"),
        ("properties/count/minimum", 0, "e.count: minimum added, now 0"),
        ("properties/size/type", "integer", "e.size: type narrowed from number to integer"),
        ("properties/count/type", "string", "e.count: type narrowed from integer to string"),
        ("properties/price", {"type": "number", "exclusiveMinimum": 0}, "e.price: type narrowed from null to number"),
        ("properties/price/anyOf/0/exclusiveMinimum", 5, "e.price: exclusiveMinimum changed from 0, now 5"),
        ("properties/symbol/pattern", "^[A-Z]{3}$", "e.symbol: pattern changed"),
        ("properties/symbol/format", "date-time", "e.symbol: format changed"),
        ("properties/weights/additionalProperties", {"type": "integer"}, "e.weights[]: type narrowed"),
        ("properties/free/additionalProperties", {"type": "string"}, "e.free[]: type narrowed"),
        ("$defs/Rank/properties/score", ..., "e.ranks[].score: removed"),
        ("$defs/Rank/properties/score/minimum", 0, "e.ranks[].score: minimum added"),
    ],
)
def test_a_breaking_change_is_told_with_its_field(path: str, value: Any, line: str) -> None:
    lines = list(breaking_changes(SCHEMA, altered(path, value), "e"))

    assert len(lines) == 1
    assert lines[0].startswith(line)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/note", {"type": "string"}),
        ("properties/side/enum", ["BUY", "SELL", "HOLD"]),
        ("properties/size/minimum", -1),
        ("properties/size/maximum", ...),
        ("properties/count/type", "number"),
        ("properties/count", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("properties/symbol/pattern", ...),
        ("properties/weights/additionalProperties", True),
        ("properties/count/default", 3),
        ("$defs/Rank/properties/reason", {"type": "string"}),
    ],
)
def test_an_additive_change_is_none_that_breaks(path: str, value: Any) -> None:
    assert list(breaking_changes(SCHEMA, altered(path, value), "e")) == []


def test_a_new_required_field_breaks_and_a_removed_event_too() -> None:
    grown = altered("properties/note", {"type": "string"}) | {"required": ["side", "size", "note"]}

    assert list(breaking_changes(SCHEMA, grown, "e")) == ["e.note: new and required, and old producers do not know it"]
    assert list(all_breaking_changes({"e": SCHEMA}, {})) == ["e: removed"]


def test_the_refresh_refuses_a_breaking_change_until_it_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    snapshot = tmp_path / "schemas.json"
    published = current_schemas()
    published["signal.generated"]["properties"]["colour"] = {"type": "string"}
    before = orjson.dumps(published)
    snapshot.write_bytes(before)

    refused = schema_snapshot.main([], snapshot)

    assert refused == 1
    assert snapshot.read_bytes() == before
    assert "signal.generated.colour: removed" in capsys.readouterr().err
    assert schema_snapshot.main(["--accept-breaking"], snapshot) == 0
    assert orjson.loads(snapshot.read_bytes()) == current_schemas()
