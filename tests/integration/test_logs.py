"""The log of a real process: every way of writing ends as JSON on stderr, and a canary secret never does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

CANARY = 'canary-7f3a"9c\\1'
PROGRAM = """
import logging, sys, threading, traceback, warnings
import structlog
from shared.telemetry.logs import configure_logging
from shared.telemetry.trace import TraceContext, use_trace

canary = sys.argv[1]
configure_logging("desk-service", "INFO", [canary])
log = structlog.get_logger("desk")

log.debug("too_quiet")
log.info("plain", value=canary)
with use_trace(TraceContext("trace-1")):
    log.info("traced", nested={"headers": [canary]})
    try:
        raise ValueError(f"signed url with {canary}\\nand a second line \\x1b[31m")
    except ValueError:
        log.exception("failed")
logging.getLogger("ccxt.base.exchange").warning("headers %s", {"X-MBX-APIKEY": canary})
logging.getLogger("uvicorn.error").info("started %d", 7)
logging.getLogger("uvicorn.access").info("noise")
logging.getLogger("odd").warning("%d", "not a number")
warnings.warn("careful with " + canary)
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
raise RuntimeError("the end of " + canary)
"""


def lines() -> tuple[str, list[dict[str, Any]]]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, CANARY], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    return ended.stderr, [json.loads(line) for line in ended.stderr.splitlines()]


def test_every_way_of_writing_gives_json_with_the_fixed_fields_and_no_secret() -> None:
    text, found = lines()
    assert "canary" not in text
    for line in found:
        assert {"timestamp", "level", "service", "trace_id", "event"} <= set(line)
        assert line["service"] == "desk-service"
        assert line["timestamp"].endswith("Z")
    events = [line["event"] for line in found]
    assert events[:3] == ["plain", "traced", "failed"]
    assert "too_quiet" not in events
    assert "noise" not in events
    assert events[3] == "headers {'X-MBX-APIKEY': '***'}"
    assert "started 7" in events
    assert events[-1] == "uncaught_exception"
    assert [line["trace_id"] for line in found[:4]] == [None, "trace-1", "trace-1", None]
    assert [line["logger"] for line in found[3:6]] == ["ccxt.base.exchange", "uvicorn.error", "odd"]
    assert any(line["level"] == "warning" and "UserWarning: careful with ***" in line["event"] for line in found)
    assert any(line.get("thread") == "worker" and "ZeroDivisionError" in line["exception"][-1] for line in found)


def test_a_traceback_is_a_list_of_lines_without_tricks() -> None:
    _, found = lines()
    (failed,) = [line for line in found if line["event"] == "failed"]
    assert failed["exception"][0] == "Traceback (most recent call last):"
    assert failed["exception"][-1] == "and a second line "
    assert failed["exception"][-2] == "ValueError: signed url with ***"
