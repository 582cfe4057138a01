"""What was traded stands in the log, once, in fixed words, with its numbers and under its trace."""

from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys
from typing import Any, get_type_hints

import pytest
import structlog

from shared.clock import SystemClock
from shared.telemetry.logs import _LineRenderer
from shared.telemetry.masking import Masker
from shared.telemetry.trading_log import TradingLogger

PROGRAM = """
import asyncio
from shared.errors import OrderRejectedError, OutcomeUnknownError
from shared.telemetry.logs import configure_logging
from tests.support.exec_risk_desk import started_desk
from tests.support.markets import flat

configure_logging("exec-risk-service")


async def main():
    desk = await started_desk(flat(50_000, 5))
    print((await desk.signal("BUY")).metadata.trace_id)
    await desk.tick()
    print((await desk.signal("BUY")).metadata.trace_id)
    print((await desk.signal("SELL")).metadata.trace_id)
    desk.venue.before["submit"] = [OrderRejectedError("no margin", code=-2019)]
    await desk.signal("BUY")
    desk.venue.before["submit"] = [OutcomeUnknownError("the answer was lost")]
    await desk.signal("BUY")


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def told() -> tuple[list[str], list[dict[str, Any]]]:
    """The traces of three signals, and what a desk logged while it dealt with them and two more."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split(), [json.loads(line) for line in ended.stderr.splitlines()]


def of_trace(lines: list[dict[str, Any]], trace_id: str) -> list[tuple[str, str | None]]:
    return [(line["event"], line.get("leg")) for line in lines if line["trace_id"] == trace_id]


def test_the_way_of_one_trade_stands_under_its_trace(told: tuple[list[str], list[dict[str, Any]]]) -> None:
    (opening, _, closing), lines = told
    trade = of_trace(lines, opening)
    for entry in (
        ("order_submitted", "entry"),
        ("order_filled", "entry"),
        ("position_opened", None),
        ("order_submitted", "stop"),
        ("stop_placed", "stop"),
        ("stop_placed", "take_profit"),
    ):
        assert trade.count(entry) == 1, (entry, trade)
    assert trade.index(("order_submitted", "entry")) < trade.index(("order_filled", "entry"))
    exits = of_trace(lines, opening) + of_trace(lines, closing)
    assert exits.count(("order_filled", "exit")) == 1
    assert exits.count(("position_closed", None)) == 1


def test_the_numbers_say_their_units(told: tuple[list[str], list[dict[str, Any]]]) -> None:
    opened = next(line for line in told[1] if line["event"] == "position_opened")
    assert (opened["symbol"], opened["side"], opened["leverage"]) == ("BTCUSDT", "LONG", 5.0)
    assert opened["size_usd"] == pytest.approx(500, abs=1)
    assert opened["stop_loss_price_usd"] < opened["entry_price_usd"] < opened["take_profit_price_usd"]
    filled = next(line for line in told[1] if line["event"] == "order_filled")
    assert filled["fill_quantity"] == filled["filled_quantity"] == 0.01
    assert filled["commission_usd"] > 0


def test_a_refusal_and_a_lost_answer_are_told_with_the_reason(told: tuple[list[str], list[dict[str, Any]]]) -> None:
    (_, refused, _), lines = told
    assert [(line["event"], line["reason"]) for line in lines if line["trace_id"] == refused] == [
        ("signal_denied", "position already open")
    ]
    rejected = next(line for line in lines if line["event"] == "order_rejected")
    assert (rejected["level"], rejected["leg"]) == ("warning", "entry")
    assert "no margin" in rejected["reason"]
    unknown = next(line for line in lines if line["event"] == "order_unknown")
    assert "the answer was lost" in unknown["reason"]
    alerts = [(line["alert_type"], line["severity"]) for line in lines if line["event"] == "risk_alert"]
    assert ("ORDER_OUTCOME_UNKNOWN", "MEDIUM") in alerts


def logged(level: int) -> tuple[TradingLogger, io.BytesIO]:
    stream = io.BytesIO()
    logger = structlog.wrap_logger(
        structlog.BytesLogger(stream),
        processors=[_LineRenderer("desk", Masker(), SystemClock())],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return TradingLogger(logger), stream


METHODS = [name for name, _ in inspect.getmembers(TradingLogger, inspect.isfunction) if not name.startswith("_")]
SAMPLES: dict[Any, Any] = {str: "text", float: 1.5, bool: True, int: 3}


def sample(annotation: Any) -> Any:
    """Return a value for a parameter of that type."""
    if annotation in SAMPLES:
        return SAMPLES[annotation]
    words = str(annotation)
    if "Literal" in words:
        return annotation.__args__[0]
    if "Mapping" in words:
        return {"accuracy": 0.6}
    return 1.5 if "float" in words else 3 if "int" in words else ["text"] if "Sequence" in words else "text"


@pytest.mark.parametrize("method", METHODS)
def test_each_method_writes_one_line_of_its_own_name_with_all_that_it_was_told(method: str) -> None:
    log, stream = logged(10)
    hints = get_type_hints(getattr(TradingLogger, method))
    facts = {name: sample(hint) for name, hint in hints.items() if name != "return"}
    getattr(log, method)(**facts)

    line = json.loads(stream.getvalue())
    assert line["event"] == method
    assert {name: line[name] for name in facts} == facts


def test_levels_follow_what_was_told() -> None:
    log, stream = logged(10)
    for severity in ("LOW", "MEDIUM", "HIGH", "CRITICAL"):
        log.risk_alert(alert_type="X", severity=severity, message="m")
    for action in ("BUY", "HOLD"):
        log.signal_generated(symbol="BTCUSDT", action=action, confidence=0.5, timeframe="1m", reason="r")
    log.emergency_stop(trigger_reason="r", close_all_positions=True, drawdown_pct=None)

    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == [
        "info", "info", "warning", "error", "info", "debug", "critical",
    ]  # fmt: skip
