"""Structured logs: one JSON object per line on stderr with service, trace id and event, and never a secret.

Lines of the standard ``logging`` module (uvicorn, ccxt, alembic), warnings and uncaught exceptions take the same way.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, BinaryIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from shared.telemetry.masking import Masker, needs_cleaning, plain_value, readable
from shared.telemetry.trace import current_trace

#: Libraries whose INFO lines repeat what ours say.
_QUIET_LOGGERS = ("uvicorn.access", "httpx", "httpcore", "asyncio", "alembic.runtime.plugins")


def configure_logging(
    service: str,
    level: str = "INFO",
    secrets: Iterable[str] = (),
    stream: BinaryIO | None = None,
) -> None:
    """Send every log line of this process to ``stream`` as JSON.

    Args:
        service: Name that stands on every line.
        level: Lowest level that is written.
        secrets: Values that are masked wherever they appear (``ServiceSettings.secret_values``).
        stream: Where the lines go; stderr by default.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _exception_as_lines,
            _LineRenderer(service, Masker(secrets)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(stream or sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(threshold)
    _route_uncaught_exceptions()


class _LineRenderer:
    """Adds service and trace, renders JSON, masks."""

    def __init__(self, service: str, masker: Masker) -> None:
        self._service = service
        self._masker = masker

    def __call__(self, logger: WrappedLogger, method: str, fields: EventDict) -> bytes:
        trace = current_trace()
        line_fields = {
            "timestamp": fields.pop("timestamp", None),
            "level": fields.pop("level", method),
            "service": self._service,
            "trace_id": trace.trace_id if trace else None,
            "event": fields.pop("event", ""),
        }
        for name, value in fields.items():
            if name not in line_fields:
                line_fields[name] = value
            elif line_fields[name] != value:
                # A field that is called like one of the five is kept beside it instead of replacing it.
                line_fields[f"{name}_"] = value
        return self._masker.mask(_render(line_fields))


def _render(fields: dict[str, Any]) -> bytes:
    try:
        line = orjson.dumps(fields, default=readable)
    except TypeError:  # huge integers, lone surrogates, keys that are no strings
        return orjson.dumps(plain_value(fields))
    return orjson.dumps(plain_value(orjson.loads(line))) if needs_cleaning(line) else line


def _exception_as_lines(logger: WrappedLogger, method: str, fields: EventDict) -> EventDict:
    """Turn ``exc_info`` into a list of text lines, so that a message with line ends cannot look like a line."""
    exc_info = fields.pop("exc_info", None)
    if not exc_info:
        return fields
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1]
    if error is not None:
        fields["exception"] = "".join(traceback.format_exception(error)).rstrip().split("\n")
    return fields


class _ToStructlog(logging.Handler):
    """Passes records of the standard module to structlog."""

    def __init__(self) -> None:
        super().__init__()
        self._logger: FilteringBoundLogger = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit the format must not lose the line
            message = f"{record.msg} {record.args}"
        extra = {"exc_info": record.exc_info} if record.exc_info else {}
        _method_for(self._logger, record.levelno)(message, logger=record.name, **extra)


def _method_for(logger: FilteringBoundLogger, level: int) -> Callable[..., Any]:
    if level >= logging.CRITICAL:
        return logger.critical
    if level >= logging.ERROR:
        return logger.error
    if level >= logging.WARNING:
        return logger.warning
    return logger.info if level >= logging.INFO else logger.debug


def _route_standard_logging(threshold: int) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _ToStructlog):
            root.removeHandler(handler)
    root.addHandler(_ToStructlog())
    root.setLevel(threshold)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)


def _route_uncaught_exceptions() -> None:
    """A traceback on stderr would pass by the filter, and exchange errors carry signed URLs."""
    log: FilteringBoundLogger = structlog.get_logger()

    def of_process(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        log.critical("uncaught_exception", error=f"{kind.__name__}: {error}", exc_info=error)

    def of_thread(failure: threading.ExceptHookArgs) -> None:
        name = failure.thread.name if failure.thread else None
        log.critical("uncaught_exception", thread=name, error=str(failure.exc_value), exc_info=failure.exc_value)

    sys.excepthook = of_process
    threading.excepthook = of_thread
