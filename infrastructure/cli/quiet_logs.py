"""Keeps the log lines of our own adapters out of the terminal: the command line speaks in sentences."""

from __future__ import annotations

import logging
import sys

import structlog


def silence_logs() -> None:
    """Let only critical log lines through, to stderr; stdout belongs to results."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
