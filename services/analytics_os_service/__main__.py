"""``python -m services.analytics_os_service``: the service as a process of its own."""

from __future__ import annotations

import sys

import structlog

from services.analytics_os_service.app import create_app
from services.analytics_os_service.config import SERVICE, AnalyticsSettings
from shared.errors import ConfigurationError
from shared.health.server import serve
from shared.settings import load_settings
from shared.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)

WRONG_CONFIGURATION = 4


def main() -> int:
    """Run until SIGINT or SIGTERM; return 0 after a clean stop, 1 when the start failed, 4 on a wrong setting."""
    try:
        settings = load_settings(AnalyticsSettings)
        configure_logging(SERVICE, settings.log_level, settings.secret_values())
        return serve(create_app(settings), host=settings.host, port=settings.port)
    except ConfigurationError as error:
        configure_logging(SERVICE)
        log.critical("configuration_wrong", error=str(error))
        return WRONG_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
