"""Under which terms an account is traded: its modes, what its key may do, and which of that is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyPermissions:
    """What the API key may do.

    Attributes:
        withdraw: Move money out.
        internal_transfer: Move money to other accounts of Binance.
        universal_transfer: Move money between wallets.
        futures: Trade USD-M futures.
        ip_restricted: It works from listed addresses only.
    """

    withdraw: bool
    internal_transfer: bool
    universal_transfer: bool
    futures: bool
    ip_restricted: bool


#: A key that is as it should be.
TRADE_ONLY = KeyPermissions(
    withdraw=False, internal_transfer=False, universal_transfer=False, futures=True, ip_restricted=True
)


@dataclass(frozen=True, slots=True)
class AccountTerms:
    """What trading on the account is like.

    Attributes:
        hedge_mode: Long and short positions of one symbol are held apart.
        multi_assets_mode: Other assets than USDT count as margin.
        key: What the key may do; None where the exchange has no such question (the demo exchange).
    """

    hedge_mode: bool = False
    multi_assets_mode: bool = False
    key: KeyPermissions | None = TRADE_ONLY


def refusals(terms: AccountTerms) -> tuple[str, ...]:
    """Return why the account must not be traded, one line each; empty when it may be."""
    found = []
    if terms.hedge_mode:
        found.append(
            "the exchange account is in hedge mode; switch it to one-way mode (POST /fapi/v1/positionSide/dual)"
        )
    if terms.multi_assets_mode:
        found.append(
            "the exchange account is in multi-assets mode; switch it to single-asset mode "
            "(POST /fapi/v1/multiAssetsMargin)"
        )
    if terms.key is not None:
        found += _refusals_of_key(terms.key)
    return tuple(found)


def _refusals_of_key(key: KeyPermissions) -> list[str]:
    found = []
    if key.withdraw:
        found.append("BINANCE_API_KEY can withdraw money; make a key that can only trade futures")
    if key.internal_transfer or key.universal_transfer:
        found.append("BINANCE_API_KEY can transfer money; make a key that can only trade futures")
    if not key.futures:
        found.append("BINANCE_API_KEY cannot trade futures; enable futures for it")
    return found


def warnings(terms: AccountTerms) -> tuple[str, ...]:
    """Return what should be better and is no reason to refuse."""
    if terms.key is not None and not terms.key.ip_restricted:
        return ("BINANCE_API_KEY works from every address; restrict it to the address of this machine",)
    return ()
