"""Names of what RPC keeps in Redis.

On a cluster everything of one answering service carries its name in literal braces, so that requests, claims, results
and cancellations lie in one slot, on one master: a claim and its request can never be on two sides of an outage.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.events.streams import rpc_request_stream, rpc_response_stream
from shared.rpc.messages import CallKey


@dataclass(frozen=True, slots=True)
class RpcKeys:
    """Keys of one installation.

    Attributes:
        cluster: Whether the braces are needed.
    """

    cluster: bool

    def requests(self, service: str) -> str:
        """Return the stream from which the replicas of ``service`` share requests."""
        return rpc_request_stream(self._tagged(service))

    def cancellations(self, service: str) -> str:
        """Return the stream that tells every replica of ``service`` what is no longer waited for."""
        return f"quantum:rpc:cancel:{self._tagged(service)}"

    def claim(self, service: str, key: CallKey) -> str:
        """Return the hash of one call with an effect: who runs it, and its answer."""
        return f"quantum:rpc:result:{self._tagged(service)}:{key[0]}:{key[1]}"

    def inbox(self, service: str, instance: str) -> str:
        """Return the reply stream of one calling process."""
        return rpc_response_stream(service, instance)

    def _tagged(self, service: str) -> str:
        return f"{{{service}}}" if self.cluster else service
