"""Short questions to our own processes on loopback."""

from __future__ import annotations

from typing import Any

import httpx

from infrastructure.supervisor.plan import Probe

#: Everything asked here is answered from memory.
_TIMEOUT_SECONDS = 2.0


class LocalHttp:
    """One client for all processes of a run; proxies of the environment are for other hosts."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False, verify=False)  # noqa: S501 - loopback

    async def get_json(self, url: str, *, timeout: float = _TIMEOUT_SECONDS) -> dict[str, Any] | None:
        """Return the JSON object at ``url``, None when there is no answer or it is none; the status is not looked at.

        A service that is not ready answers 503 with a body that says why.
        """
        try:
            body = (await self._client.get(url, timeout=timeout)).json()
        except (httpx.HTTPError, ValueError):
            return None
        return body if isinstance(body, dict) else None

    async def post(self, url: str) -> bool:
        """Send an empty POST and tell whether it was answered with success."""
        try:
            return (await self._client.post(url)).is_success
        except httpx.HTTPError:
            return False

    def probe(self, url: str) -> Probe:
        """Return a readiness probe: ``url`` answers with success."""

        async def ready() -> bool:
            try:
                return (await self._client.get(url)).is_success
            except httpx.HTTPError:
                return False

        return ready

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
