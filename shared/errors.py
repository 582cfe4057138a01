"""Every error of Quantum Trader, in one tree.

QuantumTraderError
├── ConfigurationError           a setting is missing or wrong; the process must not start (exit code 4)
├── NotRunningError              what was asked needs a running system (exit code 3)
├── TransientError               trying again later can help
│   ├── ConnectionLostError      Redis, PostgreSQL or the exchange cannot be reached
│   ├── DeadlineExceededError    an answer did not come in time (exit code 5)
│   ├── OverloadedError          the bound on concurrent work is reached
│   └── BufferFullError          the disk buffer cannot keep an event: its disk or its limit is full
├── PermanentError               trying again cannot help
│   ├── DecodeError              bytes that are no event or no message; keeps the bytes
│   ├── InvalidInputError        a value from outside breaks a rule
│   ├── PolicyConflictError      the policy changed under the caller
│   ├── CommandExpiredError      a command came after its expiry
│   ├── FencedError              another process holds what this one held
│   ├── IllegalTransitionError   a state machine has no such transition
│   └── ArtifactError            a model file is missing, damaged or does not fit
├── ExchangeError
│   ├── OrderRejectedError       the exchange definitively refused; keeps code and text
│   └── OutcomeUnknownError      the exchange may or may not have executed
└── RpcError                     the other side answered with (code, message)

Messages are one line: what was wrong, the offending value, what to do.
"""

from __future__ import annotations


class QuantumTraderError(Exception):
    """Root of all errors that this project raises on purpose."""


class ConfigurationError(QuantumTraderError):
    """A setting is missing or wrong."""


class NotRunningError(QuantumTraderError):
    """The command needs a running system and there is none."""


class TransientError(QuantumTraderError):
    """The same call can succeed later."""


class ConnectionLostError(TransientError):
    """A server cannot be reached."""


class DeadlineExceededError(TransientError):
    """An answer did not come in time; the effect may have happened."""


class OverloadedError(TransientError):
    """The bound on concurrent work is reached."""


class BufferFullError(TransientError):
    """The disk buffer cannot keep what it was given: its disk is full or fails, or its limit is reached."""


class PermanentError(QuantumTraderError):
    """The same call can never succeed."""


class DecodeError(PermanentError):
    """Bytes that cannot be read as what they should be.

    Attributes:
        raw: The offending bytes (or field map), kept for the dead letter.
    """

    def __init__(self, message: str, *, raw: object = None) -> None:
        super().__init__(message)
        self.raw = raw


class InvalidInputError(PermanentError):
    """A value from outside breaks a rule."""


class PolicyConflictError(PermanentError):
    """The stored policy has another version than the caller expected: read it again, then decide again."""


class CommandExpiredError(PermanentError):
    """A command came after its expiry and was not carried out."""


class FencedError(PermanentError):
    """Another process holds what this one held: it must stop."""


class IllegalTransitionError(PermanentError):
    """A state machine was asked for a transition that its table does not hold."""


class ArtifactError(PermanentError):
    """A model file is missing, damaged, or does not fit this code."""


class ExchangeError(QuantumTraderError):
    """The exchange answered with an error.

    Attributes:
        code: Numeric Binance code (negative), or None when there was none.
        http_status: HTTP status, or None when no answer arrived.
    """

    def __init__(self, message: str, *, code: int | None = None, http_status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status


class OrderRejectedError(ExchangeError):
    """The exchange definitively refused the request; nothing was executed."""


class OutcomeUnknownError(ExchangeError):
    """No one can say yet whether the exchange executed the request: query, never send again."""


class RpcError(QuantumTraderError):
    """An RPC handler answered with an error.

    Attributes:
        code: Upper-case machine-readable code, for example ``UNKNOWN_COMMAND``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
