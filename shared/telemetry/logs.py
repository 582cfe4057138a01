"""Structured logs: one JSON object per line on stderr with service, trace id and event, and never a secret.

Lines of the standard ``logging`` module (uvicorn, ccxt, alembic), warnings and uncaught exceptions take the same way.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from shared.clock import Clock, SystemClock
from shared.telemetry.masking import Masker, has_hint, needs_cleaning, plain_value, readable, use_masker
from shared.telemetry.trace import current_trace

#: Libraries whose INFO lines repeat what ours say.
_QUIET_LOGGERS = ("uvicorn.access", "httpx", "httpcore", "asyncio", "alembic.runtime.plugins")
#: Names of fields that are remembered as harmless; they come out of the code, so there are a few hundred at most.
_NAMES_REMEMBERED = 10_000
#: Colons of a line that belong to its timestamp.
_COLONS_OF_TIME = 2

# Counted without a lock: CPython 3.11 and 3.12 switch threads at calls and loops, never inside of ``+= 1``.
_lines_written: defaultdict[str, int] = defaultdict(int)


def lines_written() -> Mapping[str, int]:
    """Return how many lines this process wrote, by level."""
    return MappingProxyType(_lines_written)


def configure_logging(
    service: str,
    level: str = "INFO",
    secrets: Iterable[str] = (),
    stream: BinaryIO | None = None,
    clock: Clock | None = None,
) -> None:
    """Send every log line of this process to ``stream`` as JSON, and let ``mask_text`` know the secrets.

    Args:
        service: Name that stands on every line.
        level: Lowest level that is written.
        secrets: Values that are masked wherever they appear (``ServiceSettings.secret_values``).
        stream: Where the lines go; stderr by default.
        clock: Wall clock of the timestamps; the machine's by default.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    masker = Masker(secrets)
    use_masker(masker)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _LineRenderer(service, masker, clock or SystemClock()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", _Forgiving(stream or sys.stderr.buffer))),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(threshold)
    _route_uncaught_exceptions()


class _Forgiving:
    """A stream whose failures end nothing: a line that a full disk does not take must not end the work it tells of."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, line: bytes) -> int:
        try:
            return self._stream.write(line)
        except OSError:
            return 0

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


class _LineRenderer:
    """Makes the line: time, level, service, trace; exceptions as text; JSON; nothing unprintable; no secret.

    All in one place, because each further processor costs a line of 7 µs some 5 %.
    """

    def __init__(self, service: str, masker: Masker, clock: Clock) -> None:
        self._service = service
        self._masker = masker
        self._now = clock.now
        self._harmless: set[str] = set()

    def __call__(self, logger: WrappedLogger, method: str, fields: EventDict) -> bytes:
        if "exc_info" in fields:
            _exception_as_lines(fields)
        trace = current_trace()
        line_fields: dict[str, Any] = {
            "timestamp": self._now(),
            "level": method,
            "service": self._service,
            "trace_id": trace.trace_id if trace else None,
            "event": fields.pop("event", ""),
        }
        if line_fields.keys().isdisjoint(fields):
            line_fields.update(fields)
        else:
            _add_beside(line_fields, fields)
        _lines_written[method] += 1
        return self._rendered(line_fields)

    def _rendered(self, fields: dict[str, Any]) -> bytes:
        try:
            line = orjson.dumps(fields, default=readable, option=orjson.OPT_UTC_Z)
        except TypeError:  # huge integers, lone surrogates, keys that are no strings
            return self._masker.mask(orjson.dumps(plain_value(fields)))
        if needs_cleaning(line):
            return self._masker.mask(orjson.dumps(plain_value(orjson.loads(line))))
        if self._is_free_of_patterns(line, fields):
            return self._masker.mask_values(line)
        return self._masker.mask(line)

    def _is_free_of_patterns(self, line: bytes, fields: dict[str, Any]) -> bool:
        """Tell in a fraction of the time of ``has_hint`` that no pattern of the masker can match.

        Each of them needs ``=``, or a ``:`` after a telling name or before a space or a slash. When the line has no
        more colons than fields and time do, only the names of the fields are left to look at, and they repeat.
        """
        if line.count(b":") != len(fields) + _COLONS_OF_TIME or b"=" in line:
            return False
        return self._harmless.issuperset(fields) or self._learn(fields)

    def _learn(self, names: Iterable[str]) -> bool:
        harmless = [name for name in names if not has_hint(str(name))]
        if len(self._harmless) < _NAMES_REMEMBERED:
            self._harmless.update(harmless)
        return len(harmless) == len(tuple(names))


def _add_beside(line_fields: dict[str, Any], fields: EventDict) -> None:
    """Add ``fields``; one that is called like one of the fixed five is kept beside it instead of replacing it."""
    for name, value in fields.items():
        if name not in line_fields:
            line_fields[name] = value
        elif line_fields[name] != value:
            line_fields[f"{name}_"] = value


def _exception_as_lines(fields: EventDict) -> None:
    """Turn ``exc_info`` into a list of text lines, so that a message with line ends cannot look like a line."""
    exc_info = fields.pop("exc_info")
    if not exc_info:
        return
    if isinstance(exc_info, BaseException):
        error: BaseException | None = exc_info
    elif isinstance(exc_info, tuple):
        error = exc_info[1]
    else:
        error = sys.exc_info()[1]
    if error is not None:
        fields["exception"] = "".join(traceback.format_exception(error)).rstrip().split("\n")


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
