"""Where the client of each mode may talk to."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.errors import ConfigurationError, OutcomeUnknownError
from shared.exchange.client import BinanceUsdm, create_exchange
from shared.exchange.outcome import translate


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


@pytest.mark.parametrize(
    ("mode", "hosts"),
    [
        ("paper", {"127.0.0.1"}),
        ("testnet", {"demo-fapi.binance.com", "fstream.binancefuture.com", "testnet.binancefuture.com"}),
        ("live", {"fapi.binance.com", "api.binance.com", "fstream.binance.com", "ws-fapi.binance.com"}),
    ],
)
async def test_each_mode_knows_its_own_hosts_only(mode: str, hosts: set[str]) -> None:
    client = create(mode)

    assert client.hosts == hosts
    assert client.tells_key_permissions is (mode != "testnet")
    for elsewhere in {"fapi.binance.com", "demo-fapi.binance.com", "169.254.169.254", "127.0.0.1"} - hosts:
        with pytest.raises(ConfigurationError, match=elsewhere):
            await client.fetch(f"https://{elsewhere}/fapi/v1/time")
        with pytest.raises(ConfigurationError, match=elsewhere):
            client.client(f"wss://{elsewhere}/ws")
    await client.close()


def test_a_package_that_sends_orders_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = BinanceUsdm.describe

    def describe(self: BinanceUsdm) -> Any:
        told = genuine(self)
        told["urls"]["api"]["fapiPrivate"] = "https://fapi.binance.example/fapi/v1"
        return told

    monkeypatch.setattr(BinanceUsdm, "describe", describe)

    with pytest.raises(ConfigurationError, match=r"fapi\.binance\.example, which is no host of Binance"):
        create("live")


async def test_an_answer_that_leads_elsewhere_is_not_followed() -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.path)
        raise web.HTTPTemporaryRedirect("/elsewhere")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    client = create_exchange("paper", base_url=str(server.make_url("/")), api_key="key", secret="secret")

    with pytest.raises(Exception) as refused:
        await client.fapiPrivatePostOrder({"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "1"})

    assert isinstance(translate(refused.value), OutcomeUnknownError)
    assert seen == ["/fapi/v1/order"]
    await client.close()
    await server.close()
