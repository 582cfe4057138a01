"""What tests expect of a refused order."""

from __future__ import annotations

import pytest

from shared.errors import OrderRejectedError


def refused(code: int) -> pytest.RaisesExc[OrderRejectedError]:
    """Return a context that demands a refusal with Binance's ``code``."""
    return pytest.RaisesExc(OrderRejectedError, check=lambda error: error.code == code)
