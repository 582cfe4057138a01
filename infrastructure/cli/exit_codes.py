"""What the command line exits with, as one literal table."""

from __future__ import annotations

from shared.errors import ConfigurationError, DeadlineExceededError, NotRunningError, QuantumTraderError

OK = 0
ERROR = 1
USAGE = 2
NOT_RUNNING = 3
CONFIGURATION = 4
TIMEOUT = 5
INTERRUPTED = 130  # the shell's word for Ctrl-C, when what was asked for could not be delivered

#: The first class that fits wins.
_EXIT_CODES: tuple[tuple[type[QuantumTraderError], int], ...] = (
    (NotRunningError, NOT_RUNNING),
    (ConfigurationError, CONFIGURATION),
    (DeadlineExceededError, TIMEOUT),
    (QuantumTraderError, ERROR),
)


def exit_code_for(error: QuantumTraderError) -> int:
    """Return the exit code of an error that ended a command."""
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
