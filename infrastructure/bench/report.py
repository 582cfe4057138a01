"""The rows as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column, Table

from infrastructure.bench.figures import Comparison, Row

_VERDICTS = {True: "[green]yes[/]", False: "[bold red]no[/]", None: ""}


def table_of(rows: Sequence[Row]) -> Table:
    """Return one line per row, and one more per further rival."""
    table = Table(
        Column("benchmark", no_wrap=True),
        Column("value", justify="right"),
        "unit",
        "target",
        "ok",
        Column("rival", no_wrap=True),
        Column("its value", justify="right"),
        Column("ratio", justify="right"),
    )
    for row in rows:
        value = told(row.value) if row.value is not None else "[bold red]failed[/]"
        table.add_row(row.name, value, row.unit, *_cells(row.first))
        for other in row.others:
            table.add_row("", "", "", *_cells(other))
    return table


def notes_of(rows: Sequence[Row]) -> list[str]:
    """Return what there is to say beside the table, one line each."""
    notes = [f"{row.name}: {note}" for row in rows for note in row.notes]
    busy = [row.name for row in rows if (row.foreign_cpu or 0.0) > 0.1]
    if busy:
        notes.append(f"other programs used more than 10 % of the machine during {', '.join(busy)}: trust the ratios")
    return notes


def told(value: float | None) -> str:
    """Return a figure with as many digits as mean something."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _cells(comparison: Comparison) -> tuple[str, ...]:
    return (
        comparison.target or "",
        _VERDICTS[comparison.ok],
        comparison.rival or "",
        told(comparison.rival_value),
        told(comparison.ratio),
    )
