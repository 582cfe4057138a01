"""The requests that arrived last, as they came and as they were answered: for tests and for people who wonder."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from starlette.responses import Response

#: How many are remembered.
REMEMBERED = 2_000
#: What changes with every request or is nobody's business.
_LEFT_OUT = frozenset({"timestamp", "signature"})


@dataclass(frozen=True, slots=True)
class ArrivedRequest:
    """One request.

    Attributes:
        query: Parameters of the URL, decoded, in the order they came, without time stamp and signature.
        body: Likewise of the form body.
        is_signed: Whether a signature came with it.
        status: HTTP status of the answer.
    """

    method: str
    path: str
    query: str
    body: str
    is_signed: bool
    status: int

    @classmethod
    def of(cls, method: str, path: str, query: bytes, body: bytes, response: Response) -> ArrivedRequest:
        """Return what there is to remember of a request and its ``response``."""
        return cls(
            method, path, _plain(query), _plain(body), b"signature=" in query + b"&" + body, response.status_code
        )


def _plain(part: bytes) -> str:
    pieces = unquote(part.decode("utf-8", "replace")).split("&")
    return "&".join(piece for piece in pieces if piece and piece.split("=")[0] not in _LEFT_OUT)
