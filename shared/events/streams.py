"""Names of the Redis streams."""

from __future__ import annotations


def event_stream(event_type: str) -> str:
    """Return the stream that carries ``event_type``."""
    return f"quantum:stream:{event_type}"


def dead_letter_stream(service: str) -> str:
    """Return the stream of what ``service`` could not handle."""
    return f"quantum:dlq:{service}"


def rpc_request_stream(service: str) -> str:
    """Return the stream from which the replicas of ``service`` share requests."""
    return f"quantum:rpc:request:{service}"


def rpc_response_stream(service: str, instance: str) -> str:
    """Return the reply inbox of one caller."""
    return f"quantum:rpc:response:{service}:{instance}"
