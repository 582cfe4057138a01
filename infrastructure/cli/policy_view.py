"""The policy and its changes as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from infrastructure.cli.output import stdout_console, write_json, write_line
from infrastructure.cli.policy_values import shown
from shared.policy.changes import Revision, revision_of
from shared.policy.document import FIELD_NAMES, PolicyDocument
from shared.trading.policy import RiskMode


def show_policy(document: PolicyDocument, *, mode: RiskMode | None, json: bool) -> None:
    """Write the values of ``mode``, or of all."""
    modes = tuple(RiskMode) if mode is None else (mode,)
    if json:
        write_json(_as_json(document, modes))
        return
    columns = [
        Column(f"{name} (active)" if name is document.active_mode else name, justify="right", no_wrap=True)
        for name in modes
    ]
    table = Table(Column("field", no_wrap=True), *columns)
    for field in FIELD_NAMES:
        table.add_row(field, *(shown(field, document.values(name)[field]) for name in modes))
    console = stdout_console()
    console.print(escape(_headline(document)), soft_wrap=True)
    console.print(table)


def show_change(document: PolicyDocument, *, is_new: bool, json: bool) -> None:
    """Write what a change did."""
    row = revision_of(document)
    if json:
        revision = row.as_json() if is_new else None
        write_json({"changed": is_new, "revision": revision, "policy": _as_json(document, tuple(RiskMode))})
    elif is_new:
        write_line(f"version {row.version} by {row.updated_by}: {row.reason}")
        for line in _told(row):
            write_line(f"  {line}")
    else:
        write_line(f"nothing to change: version {row.version} is like that already")


def show_history(rows: Sequence[Revision], *, json: bool) -> None:
    """Write rows of the audit trail, in the order given."""
    if json:
        write_json({"revisions": [row.as_json() for row in rows]})
        return
    table = Table("version", Column("when (UTC)", no_wrap=True), "who", "what", "why")
    for row in rows:
        cells = (str(row.version), f"{row.at:%Y-%m-%d %H:%M:%S}", row.updated_by, "\n".join(_told(row)), row.reason)
        table.add_row(*map(escape, cells))
    stdout_console().print(table)


def _headline(document: PolicyDocument) -> str:
    why = f": {document.change.reason}" if document.change else ""
    when = f"{document.last_updated:%Y-%m-%d %H:%M:%S} UTC"
    return f"{document.active_mode} is active; version {document.version} of {when} by {document.updated_by}{why}"


def _told(row: Revision) -> list[str]:
    switch = [f"mode {row.previous_mode} → {row.mode}"] if row.previous_mode not in ("", row.mode) else []
    values = [
        f"{mode}.{field} {shown(field, old)} → {shown(field, new)}"
        for mode, fields in sorted(row.changed.items())
        for field, (old, new) in fields.items()
    ]
    return switch + values


def _as_json(document: PolicyDocument, modes: Sequence[RiskMode]) -> dict[str, Any]:
    return {
        "active_mode": document.active_mode.value,
        "version": document.version,
        "last_updated": document.last_updated.isoformat(),
        "updated_by": document.updated_by,
        "reason": document.change.reason if document.change else "",
        "modes": {mode.value: document.values(mode) for mode in modes},
    }
