"""What ``/health`` answers: the contract of Sprint 3, and its words in heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class HealthStatus(StrEnum):
    """State of a service or of one thing it depends on."""

    OK = "OK"
    DEGRADED = "DEGRADED"  # works, but something is slow, missing or not ready yet
    DOWN = "DOWN"  # cannot do its work


#: The same three states in ``service.heartbeat`` and in version 2.
HEARTBEAT_STATUS: Mapping[HealthStatus, str] = MappingProxyType(
    {HealthStatus.OK: "HEALTHY", HealthStatus.DEGRADED: "DEGRADED", HealthStatus.DOWN: "CRITICAL"}
)


class DependencyHealth(BaseModel):
    """One thing that the service depends on."""

    model_config = ConfigDict(frozen=True)

    status: HealthStatus
    latency_ms: float | None = Field(default=None, description="Round trip of the last check, milliseconds.")
    error: str | None = Field(default=None, description="Why it is not OK.")
    details: dict[str, Any] = Field(default_factory=dict, description="Figures that the check has to tell.")


class ServiceHealth(BaseModel):
    """Body of ``/health``."""

    model_config = ConfigDict(frozen=True)

    service: str
    status: HealthStatus
    version: str
    timestamp: datetime
    uptime_seconds: float
    dependencies: dict[str, DependencyHealth]
    modules: dict[str, str] = Field(description="State of each part, one line each.")
    metrics: dict[str, Any] = Field(default_factory=dict, description="Figures of the service.")


def overall_status(
    dependencies: Mapping[str, DependencyHealth], critical: frozenset[str], *, ready: bool
) -> HealthStatus:
    """Return the state of the service: a critical dependency takes it down, everything else degrades it."""
    if any(dependencies[name].status is HealthStatus.DOWN for name in sorted(critical & dependencies.keys())):
        return HealthStatus.DOWN
    if not ready or any(found.status is not HealthStatus.OK for found in dependencies.values()):
        return HealthStatus.DEGRADED
    return HealthStatus.OK
