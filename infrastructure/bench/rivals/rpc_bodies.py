"""Requests and responses of rivals: the same fields as ours, in one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infrastructure.bench.ours.rpc import COMMAND, SERVICE
from shared.clock import SystemClock
from shared.ids import RandomIds


class RpcBodies:
    """Makes them one after the other."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._ids = RandomIds()
        self._number = 0

    def request(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return one request."""
        return {
            "metadata": self._metadata("rpc.request", trace_id=self._ids.new(), causation_id=None),
            "payload": {
                "metadata": {},
                "service_target": SERVICE,
                "command": COMMAND,
                "parameters": parameters,
                "timeout_seconds": 10.0,
                "require_response": True,
            },
        }

    def response(self, result: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to ``request``."""
        asked = request["metadata"]
        return {
            "metadata": self._metadata("rpc.response", trace_id=asked["trace_id"], causation_id=asked["event_id"]),
            "payload": {
                "metadata": {},
                "request_trace_id": asked["trace_id"],
                "status": "SUCCESS",
                "result": result,
                "error_message": None,
                "error_code": None,
                "processing_time_ms": 0.01,
            },
        }

    def _metadata(self, event_type: str, *, trace_id: str, causation_id: str | None) -> dict[str, Any]:
        self._number += 1
        return {
            "event_id": self._ids.new(),
            "event_type": event_type,
            "trace_id": trace_id,
            "causation_id": causation_id,
            "timestamp": self._clock.now(),
            "source": SERVICE,
            "sequence": self._number,
            "version": "3.0",
        }
