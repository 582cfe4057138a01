"""Log lines in benchmarks: JSON with a trace id, as services write them, and the same with structlog alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import structlog

from infrastructure.bench.cue import Cue, seconds_now
from shared.ids import RandomIds
from shared.telemetry.logs import configure_logging
from shared.telemetry.trace import TraceContext, use_trace

#: A secret to look for in every line, as each service has some.
_SECRETS = ("a1b2c3d4e5f6a7b8c9d0", "redis-password-1234", "postgres-password-5678")


def write_ours(cue: Cue) -> dict[str, Any]:
    """Write lines through the logging of services: trace id, masking, one JSON object per line."""
    with Path(os.devnull).open("wb") as nowhere:
        configure_logging("exec-risk-service", "INFO", _SECRETS, stream=nowhere)
        with use_trace(TraceContext(RandomIds().new())):
            return _write(cue, structlog.get_logger())


def write_bare(cue: Cue) -> dict[str, Any]:
    """Write lines through structlog's own processors, orjson and its bytes logger: no masking."""
    with Path(os.devnull).open("wb") as nowhere:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=orjson.dumps),
            ],
            wrapper_class=structlog.make_filtering_bound_logger("info"),
            logger_factory=structlog.BytesLoggerFactory(nowhere),
            cache_logger_on_first_use=True,
        )
        structlog.contextvars.bind_contextvars(service="exec-risk-service", trace_id=RandomIds().new())
        return _write(cue, structlog.get_logger())


def _write(cue: Cue, log: Any) -> dict[str, Any]:
    cue.wait_for_start()
    count, began = 0, seconds_now()
    while (ended := seconds_now()) < began + cue.options["seconds"]:
        for _ in range(100):
            log.info("order_submitted", symbol="BTCUSDT", side="BUY", price=45_000.5, client_order_id="qt3-en-4f2a9c")
        count += 100
    return {"count": count, "lines_per_s": count / (ended - began)}
