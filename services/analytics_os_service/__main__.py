"""``python -m services.analytics_os_service``: the service as a process of its own."""

from __future__ import annotations

import sys

from services.analytics_os_service.app import create_app
from services.analytics_os_service.config import SERVICE, AnalyticsSettings
from shared.health.server import run_service

if __name__ == "__main__":
    sys.exit(run_service(SERVICE, AnalyticsSettings, create_app))
