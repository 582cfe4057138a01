"""What an account and its key must be like, at the start and while it runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.exec_risk_service.adapters.binance_reports import key_permissions
from services.exec_risk_service.config import ExecRiskSettings
from services.exec_risk_service.domain.account_terms import TRADE_ONLY, AccountTerms, refusals, warnings
from services.exec_risk_service.domain.trading_state import TradingCause
from services.exec_risk_service.handlers.account_watch import SUSPICION_SECONDS, TERMS_SECONDS, AccountWatch
from shared.errors import ConfigurationError
from shared.settings import load_settings
from tests.support.exec_risk_desk import Desk, desk_on, started_desk
from tests.support.markets import flat

GOOD = {
    "ipRestrict": True,
    "enableWithdrawals": False,
    "enableInternalTransfer": False,
    "permitsUniversalTransfer": False,
    "enableFutures": True,
}
#: What is wrong -> what is said.
BAD: dict[str, tuple[AccountTerms, str]] = {
    "hedge mode": (AccountTerms(hedge_mode=True), "hedge mode"),
    "multi-assets mode": (AccountTerms(multi_assets_mode=True), "multi-assets mode"),
    "a key that withdraws": (AccountTerms(key=replace(TRADE_ONLY, withdraw=True)), "can withdraw money"),
    "a key that transfers": (AccountTerms(key=replace(TRADE_ONLY, internal_transfer=True)), "can transfer money"),
    "a key for wallets": (AccountTerms(key=replace(TRADE_ONLY, universal_transfer=True)), "can transfer money"),
    "a key without futures": (AccountTerms(key=replace(TRADE_ONLY, futures=False)), "cannot trade futures"),
}


@pytest.mark.parametrize("wrong", BAD)
async def test_the_start_refuses(wrong: str) -> None:
    terms, said = BAD[wrong]
    desk = desk_on(flat(50_000, 5))
    desk.venue.terms = terms

    with pytest.raises(ConfigurationError, match=said):
        await desk.start()

    assert desk.service.ledger.needs_recovery


def test_a_good_account_is_not_refused_and_a_key_for_every_address_is_only_told() -> None:
    everywhere = AccountTerms(key=replace(TRADE_ONLY, ip_restricted=False))

    assert refusals(AccountTerms()) == refusals(AccountTerms(key=None)) == refusals(everywhere) == ()
    assert warnings(AccountTerms()) == warnings(AccountTerms(key=None)) == ()
    assert "restrict it" in warnings(everywhere)[0]


def test_what_the_exchange_does_not_say_about_a_key_counts_against_it() -> None:
    assert key_permissions(GOOD) == TRADE_ONLY
    for name in GOOD:
        answer = {key: value for key, value in GOOD.items() if key != name}
        assert key_permissions(answer) != TRADE_ONLY, name


# -- while it runs -----------------------------------------------------------------------------------------------------


class Watched:
    """A running desk and its watch, with one cause that a test switches."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.clock_is_wrong: str | None = None
        self.watch = self.new_watch()

    def new_watch(self) -> AccountWatch:
        return AccountWatch(
            self.desk.service.ledger,
            self.desk.venue,
            clock=self.desk.clock,
            causes={TradingCause.CLOCK_SKEW: lambda: self.clock_is_wrong},
        )

    def state(self) -> str:
        return str(self.desk.book.trading.state)

    def alerts(self) -> list[str]:
        return [alert.alert_type for alert in self.desk.bus.of("risk.alert")]


@pytest.fixture
async def watched() -> Watched:
    return Watched(await started_desk(flat(50_000, 5)))


async def test_a_wrong_clock_keeps_entries_back_until_it_is_right(watched: Watched) -> None:
    watched.clock_is_wrong = "the clock is 1200 ms ahead"
    for _ in range(3):
        await watched.watch.tick()

    assert watched.state() == "REDUCING"
    assert watched.alerts() == ["CLOCK_SKEW"]
    await watched.desk.signal("BUY")
    assert watched.desk.venue.sent == []

    watched.clock_is_wrong = None
    await watched.watch.tick()
    assert watched.state() == "ACTIVE"


async def test_a_cause_of_the_life_before_is_lifted_by_the_next(watched: Watched) -> None:
    watched.clock_is_wrong = "the clock is 1200 ms ahead"
    await watched.watch.tick()
    await watched.desk.restart()
    watched.watch, watched.clock_is_wrong = watched.new_watch(), None
    assert watched.state() == "REDUCING"

    await watched.watch.tick()

    assert watched.state() == "ACTIVE"


@pytest.mark.parametrize("wrong", BAD)
async def test_terms_that_change_while_it_runs_keep_entries_back(watched: Watched, wrong: str) -> None:
    watched.desk.venue.terms, said = BAD[wrong]
    await watched.watch.tick()
    assert watched.state() == "ACTIVE"  # not asked yet

    watched.desk.clock.advance(TERMS_SECONDS)
    await watched.watch.tick()

    assert watched.state() == "REDUCING"
    assert said in watched.desk.book.trading.reason
    assert watched.alerts() == ["ACCOUNT_TERMS"]
    watched.desk.venue.terms = AccountTerms()
    watched.desk.clock.advance(TERMS_SECONDS)
    await watched.watch.tick()
    await watched.watch.tick()
    assert watched.state() == "ACTIVE"


async def test_a_recovery_while_it_runs_does_not_end_the_service(watched: Watched) -> None:
    watched.desk.venue.terms = AccountTerms(hedge_mode=True)

    await watched.desk.service.recover()

    assert not watched.desk.service.ledger.needs_recovery


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("BINANCE_API_KEY", {}),
        ("BINANCE_API_KEY", {"BINANCE_API_KEY": "paper"}),
        ("BINANCE_API_SECRET", {"BINANCE_API_KEY": "k" * 64, "BINANCE_API_SECRET": "paper"}),
        ("BINANCE_API_KEY", {"BINANCE_API_KEY": "", "BINANCE_API_SECRET": "s" * 64}),
    ],
)
@pytest.mark.parametrize("mode", ["testnet", "live"])
def test_the_keys_of_the_paper_exchange_are_refused_elsewhere(
    monkeypatch: pytest.MonkeyPatch, mode: str, name: str, variables: dict[str, str]
) -> None:
    for variable in ("BINANCE_API_KEY", "BINANCE_API_SECRET"):
        monkeypatch.delenv(variable, raising=False)
    given = {
        "REDIS_URL": "redis://127.0.0.1",
        "POSTGRES_URL": "postgresql://127.0.0.1/x",
        "TRADING_MODE": mode,
        "QT_LIVE_CONFIRM": "I-understand",
        **variables,
    }
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError, match=rf"TRADING_MODE={mode} needs .*{name}"):
        load_settings(ExecRiskSettings)


async def test_a_refusal_about_the_account_keeps_entries_back_until_a_look_finds_nothing(watched: Watched) -> None:
    watched.watch.suspect("POST /fapi/v1/order: code -2015, Invalid API-key, IP, or permissions for action.")
    await watched.watch.tick()
    assert watched.state() == "REDUCING"
    assert "-2015" in watched.desk.book.trading.reason

    watched.desk.clock.advance(SUSPICION_SECONDS)
    await watched.watch.tick()

    assert watched.state() == "ACTIVE"
