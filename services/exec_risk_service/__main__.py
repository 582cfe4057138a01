"""``python -m services.exec_risk_service``: the service as a process of its own."""

from __future__ import annotations

import sys

from services.exec_risk_service.app import create_app
from services.exec_risk_service.config import SERVICE, ExecRiskSettings
from shared.health.server import run_service

if __name__ == "__main__":
    sys.exit(run_service(SERVICE, ExecRiskSettings, create_app))
