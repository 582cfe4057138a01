"""``quantum-trader doctor``: look at everything that a run needs before it is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from infrastructure.cli import exit_codes
from infrastructure.cli.options import JsonOption, StateDirOption, state_dir_from
from infrastructure.cli.output import stdout_console, write_json

if TYPE_CHECKING:  # the command line starts fast because heavy imports wait for their command
    from infrastructure.cli.diagnosis import Finding


def doctor(
    *,
    state_dir: StateDirOption = None,
    crashpoints: Annotated[
        bool, typer.Option("--crashpoints", help="List the moments at which tests end exec-risk, and check nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check this machine and its settings; exit code 1 when something would fail."""
    if crashpoints:
        _list_crashpoints(json=json)
        return
    from infrastructure.cli.diagnosis import FAIL, diagnose

    findings = diagnose(state_dir_from(state_dir))
    failed = any(finding.verdict == FAIL for finding in findings)
    if json:
        write_json({"ok": not failed, "checks": [finding.as_dict() for finding in findings]})
    else:
        _show(findings)
    raise typer.Exit(exit_codes.ERROR if failed else exit_codes.OK)


def _list_crashpoints(*, json: bool) -> None:
    from services.exec_risk_service.adapters.crash_points import crash_points

    if json:
        write_json({"exec-risk-service": list(crash_points())})
        return
    for point in crash_points():
        stdout_console().print(point, highlight=False)


def _show(findings: list[Finding]) -> None:
    from rich.table import Column, Table

    table = Table(Column("check", no_wrap=True), "", Column("found", overflow="fold"), "what to do")
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for finding in findings:
        verdict = f"[{colours[finding.verdict]}]{finding.verdict}[/]"
        table.add_row(finding.check, verdict, finding.detail, finding.advice)
    stdout_console().print(table)
