"""Start components in order, stop them in reverse, and know whether the service is ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)


class Component(Protocol):
    """A part of a service with a life of its own.

    Attributes:
        name: Shown in logs and in ``/health`` under ``modules``.
    """

    name: str

    async def start(self) -> None:
        """Begin; return when the component does its work (or has recovered what it must)."""
        ...

    async def stop(self) -> None:
        """End; finish or release what is in hand. Safe to call after a failed start."""
        ...


class Service:
    """An ordered list of components that starts as one and stops as one.

    Crash recovery is the same code as the start: there is no other path.
    """

    def __init__(self, name: str, components: Sequence[Component]) -> None:
        self.name = name
        self._components = tuple(components)
        self._started: list[Component] = []
        self.ready = False
        self.start_error: str | None = None

    async def start(self) -> None:
        """Start every component in order; on failure stop those that run and raise."""
        try:
            for component in self._components:
                log.info("component_starting", component=component.name)
                self._started.append(component)
                await component.start()
        except BaseException as error:
            self.start_error = f"{type(error).__name__}: {error}"
            log.error("service_start_failed", error=self.start_error)
            await self.stop()
            raise
        self.ready = True
        log.info("service_ready", service=self.name)

    async def stop(self) -> None:
        """Stop the started components in reverse; one that fails does not keep the others up."""
        self.ready = False
        while self._started:
            component = self._started.pop()
            try:
                await component.stop()
            except Exception as error:  # noqa: BLE001 - one stuck part must not keep the others up
                log.error("component_stop_failed", component=component.name, error=str(error))
        log.info("service_stopped", service=self.name)

    def modules(self) -> dict[str, str]:
        """Return ``{component name: HEALTHY | STARTING}`` for ``/health``."""
        started = {component.name for component in self._started}
        return {
            component.name: "HEALTHY" if self.ready and component.name in started else "STARTING"
            for component in self._components
        }
