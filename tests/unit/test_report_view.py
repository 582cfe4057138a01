"""The report of a timed run as programs and people get it."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import pytest

from infrastructure.cli.progress import PlainProgress
from infrastructure.cli.report_view import show_report
from infrastructure.supervisor.invariants import Invariants, Verdict
from infrastructure.supervisor.run_report import RunReport, ServiceRecord


def report(*, dead_letters: int = 0, findings: tuple[str, ...] = ()) -> RunReport:
    return RunReport(
        candles=120,
        predictions=90,
        signals=90,
        intents=17,
        orders_accepted=17,
        fills=7,
        positions_opened=5,
        positions_closed=2,
        realised_pnl_usd=Decimal("-0.06"),
        fees_usd=Decimal("1.0048"),
        funding_usd=Decimal(0),
        equity_usd=Decimal("9997.708"),
        dead_letters=dead_letters,
        trace_example="deb1f65d",
        invariants=Invariants(Verdict(findings), Verdict(()), Verdict(())),
        services={"ai-service": ServiceRecord("READY", 2)},
    )


def test_programs_get_exactly_one_json_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()

    show_report(report(), as_json=True, progress=PlainProgress(log))

    shown = json.loads(capsys.readouterr().out)
    assert shown["services"] == {"ai-service": {"status": "READY", "restarts": 2}}
    assert shown["invariants"]["wallet_reconciles"] is True
    assert log.getvalue() == ""


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_report(report(), as_json=False, progress=PlainProgress(io.StringIO()))

    shown = capsys.readouterr().out
    assert "positions opened" in shown
    assert "9,997.71" in shown
    assert "READY, restarts: 2" in shown


def test_what_is_wrong_is_said_with_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()

    show_report(
        report(dead_letters=3, findings=("BTCUSDT: 1 fill is missing",)), as_json=False, progress=PlainProgress(log)
    )

    assert "BTCUSDT: 1 fill is missing" in log.getvalue()
    assert "3 events" in log.getvalue()
    assert "false" in capsys.readouterr().out
