"""HTTP routes of the analytics-os-service; each calls one handler or store."""

from __future__ import annotations

from services.analytics_os_service.api.access import ControlAccess
from services.analytics_os_service.api.analytics import analytics_router
from services.analytics_os_service.api.dead_letters import dead_letters_router
from services.analytics_os_service.api.policy import policy_router

__all__ = ["ControlAccess", "analytics_router", "dead_letters_router", "policy_router"]
