"""How the report of a timed run is shown: one JSON object, or a table; what is wrong goes to stderr."""

from __future__ import annotations

from rich.table import Table

from infrastructure.cli.output import stdout_console, write_json
from infrastructure.cli.progress import Progress
from infrastructure.supervisor.run_report import RunReport


def show_report(report: RunReport, *, as_json: bool, progress: Progress) -> None:
    """Write the report to stdout and its complaints to ``progress``."""
    for complaint in report.complaints:
        progress.say(complaint)
    if as_json:
        write_json(report.as_json())
    else:
        stdout_console().print(report_table(report))


def report_table(report: RunReport) -> Table:
    """Return the report as rows of name and value."""
    values = report.as_json()
    invariants, services = values.pop("invariants"), values.pop("services")
    table = Table("figure", "value", title="What the run did", title_justify="left")
    for name, value in values.items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}" if isinstance(value, float) else str(value))
    for name, holds in invariants.items():
        table.add_row(name.replace("_", " "), "[green]true[/]" if holds else "[bold red]false[/]")
    for name, record in services.items():
        table.add_row(name, f"{record['status']}, restarts: {record['restarts']}")
    return table
