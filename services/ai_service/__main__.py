"""``python -m services.ai_service``: the service as a process of its own."""

from __future__ import annotations

import sys

from services.ai_service.app import create_app
from services.ai_service.config import SERVICE, AiServiceSettings
from shared.health.server import run_service

if __name__ == "__main__":
    sys.exit(run_service(SERVICE, AiServiceSettings, create_app))
