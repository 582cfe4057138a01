"""The page about logs and figures says what the code does."""

from __future__ import annotations

import inspect
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from infrastructure.docs.metrics_page import PAGE, figures_table, page
from services.ai_service import app as ai
from services.ai_service.config import AiServiceSettings
from services.analytics_os_service import app as analytics
from services.analytics_os_service.config import AnalyticsSettings
from services.exec_risk_service import app as exec_risk
from services.exec_risk_service.config import ExecRiskSettings
from shared.telemetry.trading_log import TradingLogger

TEXT = PAGE.read_text(encoding="utf-8")
REDIS = "redis://127.0.0.1:1/0"
POSTGRES = "postgresql://127.0.0.1:1/none"


def test_the_table_is_what_the_code_declares() -> None:
    assert page(TEXT) == TEXT, "run: python -m infrastructure.docs.metrics_page"
    assert figures_table() in TEXT


def test_every_event_of_the_trading_log_is_named() -> None:
    methods = [name for name, _ in inspect.getmembers(TradingLogger, inspect.isfunction) if not name.startswith("_")]
    told = TEXT.split("trading_log.py`:\n")[1].split("`.\n")[0]

    assert sorted(told.replace("`", "").split()) == sorted(methods)


def services() -> dict[str, Any]:
    return {
        "ai-service": lambda: ai.create_app(AiServiceSettings(_env_file=None, redis_url=REDIS)),
        "exec-risk-service": lambda: exec_risk.create_app(
            ExecRiskSettings(_env_file=None, redis_url=REDIS, postgres_url=POSTGRES)
        ),
        "analytics-os-service": lambda: analytics.create_app(
            AnalyticsSettings(_env_file=None, redis_url=REDIS, postgres_url=POSTGRES)
        ),
    }


@pytest.mark.parametrize("service", services())
async def test_whatever_a_service_shows_is_explained(service: str) -> None:
    app: FastAPI = services()[service]()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http:
        scraped = (await http.get("/metrics")).text

    names = [line.split()[2] for line in scraped.splitlines() if line.startswith("# TYPE")]
    # The library's own counters tell when each series began, which nobody asked for.
    assert [name for name in names if f"`{name}`" not in TEXT and not name.endswith("_created")] == []
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            assert family.name.startswith("process_") or sample.labels["service"] == service, sample
