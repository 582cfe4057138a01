"""Modes of the account and permissions of its key: what a careful client asks for before it trades."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.errors import InvalidInputError

#: What GET /sapi/v1/account/apiRestrictions answers for a key that is as it should be.
_TRADE_ONLY: Mapping[str, bool] = {
    "ipRestrict": True,
    "enableReading": True,
    "enableWithdrawals": False,
    "enableInternalTransfer": False,
    "permitsUniversalTransfer": False,
    "enableMargin": False,
    "enableFutures": True,
    "enableVanillaOptions": False,
    "enablePortfolioMarginTrading": False,
    "enableSpotAndMarginTrading": False,
    "enableFixApiTrade": False,
    "enableFixReadOnly": False,
}


class AccountSettings:
    """Set by tests through the admin port; nothing in the exchange follows them.

    Attributes:
        multi_assets: Multi-assets mode.
    """

    def __init__(self) -> None:
        self.multi_assets = False
        self._permissions = dict(_TRADE_ONLY)

    def change(self, wanted: Mapping[str, object]) -> dict[str, Any]:
        """Set some of the values; return all of them.

        Raises:
            InvalidInputError: A name is not known, or a value is no boolean.
        """
        for name, value in wanted.items():
            if not isinstance(value, bool) or (name != "multiAssetsMargin" and name not in self._permissions):
                known = ", ".join(("multiAssetsMargin", *self._permissions))
                raise InvalidInputError(f"{name}={value!r} cannot be set; use true or false for {known}")
        for name, value in wanted.items():
            if name == "multiAssetsMargin":
                self.multi_assets = bool(value)
            else:
                self._permissions[name] = bool(value)
        return {"multiAssetsMargin": self.multi_assets, **self._permissions}

    def permissions(self) -> dict[str, bool]:
        """Return what the key may do."""
        return dict(self._permissions)
