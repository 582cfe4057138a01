"""One recorded run for all tests that look at it from different sides."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.markets import market_folder
from tests.support.recorded_run import VENUE_SYMBOLS, Recorded, record


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Return the record of a whole run of the system."""
    candles = market_folder(tmp_path_factory.mktemp("candles"), VENUE_SYMBOLS, "1m")
    with ThreadPoolExecutor(max_workers=1) as threads:
        return threads.submit(asyncio.run, record(tmp_path_factory.mktemp("state"), candles)).result()
