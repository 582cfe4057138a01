"""What is let in and out: messages of a size, under the right signature, of our time, and for this service."""

from __future__ import annotations

from datetime import datetime, timedelta

from shared.errors import DecodeError, InvalidInputError
from shared.rpc.codec import decode_cancellation, decode_request, decode_response
from shared.rpc.messages import RESULT_LIFETIME_SECONDS, Cancellation, Fields, RPCRequest, RPCResponse
from shared.rpc.refusals import Refusal
from shared.rpc.signing import Signer

#: Largest message, bytes; the biggest answers are some ten thousand.
MAX_MESSAGE_BYTES = 1024 * 1024
#: A signed request is taken for this long, and from clocks that differ by so much. Answers are kept for longer: who
#: replays a request within this time has the stored answer sent to its caller once more, and that is all.
WINDOW = timedelta(seconds=RESULT_LIFETIME_SECONDS / 2)


class MessageGuard:
    """Looks at every message before anything is done with it; the signature comes before the content."""

    def __init__(self, service: str, signer: Signer | None) -> None:
        """Prepare.

        Args:
            service: Service whose process this is.
            signer: Key of the installation; None lets everybody in.
        """
        self._service = service
        self._signer = signer

    def seal(self, fields: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Return ``fields`` ready to be sent.

        Raises:
            InvalidInputError: They are too large.
        """
        if (size := _size(fields)) > MAX_MESSAGE_BYTES:
            raise InvalidInputError(f"an RPC message may have {MAX_MESSAGE_BYTES} bytes, this one has {size}")
        if self._signer is not None:
            self._signer.sign(fields)
        return fields

    def request(self, fields: Fields, now: datetime) -> RPCRequest | Refusal:
        """Return the request in ``fields``."""
        if refusal := self._outside(fields):
            return refusal
        try:
            request = decode_request(fields)
        except DecodeError as error:
            return Refusal("unreadable", str(error))
        if request.service_target != self._service:
            return _misdirected(request.service_target, self._service)
        if self._signer is not None and abs(now - request.timestamp) > WINDOW:
            age = (now - request.timestamp).total_seconds()
            return Refusal("outside_window", f"{request.source} says it asked {age:.0f} s ago; compare the clocks")
        return request

    def answer(self, fields: Fields) -> tuple[str, str, RPCResponse] | Refusal:
        """Return the request id, the answering service, and the answer in ``fields``."""
        if refusal := self._outside(fields):
            return refusal
        try:
            return decode_response(fields)
        except DecodeError as error:
            return Refusal("unreadable", str(error))

    def cancellation(self, fields: Fields) -> Cancellation | Refusal:
        """Return the cancellation in ``fields``."""
        if refusal := self._outside(fields):
            return refusal
        try:
            service, cancellation = decode_cancellation(fields)
        except DecodeError as error:
            return Refusal("unreadable", str(error))
        return cancellation if service == self._service else _misdirected(service, self._service)

    def _outside(self, fields: Fields) -> Refusal | None:
        if (size := _size(fields)) > MAX_MESSAGE_BYTES:
            return Refusal("too_large", f"a message of {size} bytes; {MAX_MESSAGE_BYTES} are allowed")
        problem = None if self._signer is None else self._signer.problem(fields)
        if problem is None:
            return None
        return Refusal(problem, "the writer does not have the QT_RPC_KEY of this installation")


def _size(fields: Fields) -> int:
    return sum(map(len, fields.values()))


def _misdirected(named: str, service: str) -> Refusal:
    return Refusal("wrong_service", f"a message for {named!r:.80} came to {service}")
