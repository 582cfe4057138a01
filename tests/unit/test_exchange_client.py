"""Where the client of each mode may talk to."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from shared.errors import ConfigurationError
from shared.exchange.client import BinanceUsdm, create_exchange


def addresses(exchange: BinanceUsdm) -> set[str]:
    def collect(value: object) -> set[str]:
        if isinstance(value, dict):
            return {found for inner in value.values() for found in collect(inner)}
        return {value} if isinstance(value, str) else set()

    return collect(exchange.urls["api"])


def create(mode: str, base_url: str = "http://127.0.0.1:8100") -> BinanceUsdm:
    return create_exchange(mode, base_url=base_url, api_key="key", secret="secret")


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:8100", "http://localhost:1/", "http://[::1]:8100"])
async def test_in_paper_mode_every_address_is_this_machine(base_url: str) -> None:
    exchange = create("paper", base_url)
    hosts = {urlsplit(url).hostname for url in addresses(exchange)}
    assert hosts == {urlsplit(base_url).hostname}
    assert exchange.urls["api"]["fapiPrivate"] == base_url.rstrip("/") + "/fapi/v1"
    await exchange.close()


@pytest.mark.parametrize(
    "base_url",
    [
        "https://fapi.binance.com",
        "http://10.0.0.1:8100",
        "http://127.0.0.1.example.org",
        "127.0.0.1:8100",
        "",
        "ftp://x",
    ],
)
def test_paper_mode_refuses_any_other_host(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="paper mode talks to this machine only"):
        create("paper", base_url)


async def test_testnet_and_live_talk_to_their_own_hosts() -> None:
    testnet, live = create("testnet"), create("live")
    assert urlsplit(testnet.urls["api"]["fapiPrivate"]).hostname == "demo-fapi.binance.com"
    assert urlsplit(live.urls["api"]["fapiPrivate"]).hostname == "fapi.binance.com"
    for exchange in (testnet, live):
        assert exchange.options["recvWindow"] == 3000
        assert exchange.enableRateLimit is False
        await exchange.close()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="use paper, testnet or live"):
        create("simulation")
