"""The event that benchmarks send: a ``signal.generated`` with every field set, no two alike."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from shared.clock import Clock
from shared.events.v3 import SignalGeneratedPayload
from shared.ids import IdSource

EVENT_TYPE = "signal.generated"
#: A universe of usual size; deliveries of one symbol keep their order, so their number bounds what runs at once.
SYMBOLS = tuple(
    f"{base}USDT"
    for base in (
        *("BTC", "ETH", "SOL", "BNB", "XRP", "ADA", "DOGE", "AVAX", "DOT", "LINK"),
        *("LTC", "BCH", "ATOM", "NEAR", "APT", "ARB", "OP", "SUI", "FIL", "AR"),
    )
)
#: No benchmark lasts so long that a signal expires in it.
_LIFETIME = timedelta(hours=1)
_MODELS = ("xgboost", "lightgbm", "nhits", "patchtst")


class SignalSamples:
    """Makes signals one after the other, as the model that services publish or as plain values for rivals."""

    def __init__(self, clock: Clock) -> None:
        self._expires_at = clock.now() + _LIFETIME
        self._number = 0

    def payload(self) -> SignalGeneratedPayload:
        """Return the next signal as services build it: validated."""
        return SignalGeneratedPayload(**self._next())

    def plain(self) -> dict[str, Any]:
        """Return the next signal as a dict that orjson can write; nothing is validated."""
        return {"metadata": {}, **self._next()}

    def _next(self) -> dict[str, Any]:
        self._number = number = self._number + 1
        swing = number % 1000 / 1000
        return {
            "symbol": SYMBOLS[number % len(SYMBOLS)],
            "action": "BUY" if number & 1 else "SELL",
            "confidence": 0.5 + swing / 2,
            "model_source": "ensemble",
            "score": swing,
            "timeframe": "1h",
            "price": 45_000.0 + swing,
            "volume": 120.5 + swing,
            "model_version": "2026-01-01T00:00:00Z-3f2a",
            "ensemble_agreement": 0.75,
            "models_voted": _MODELS,
            "suggested_leverage": 3.0,
            "suggested_size_usd": 250.0 + swing,
            "signal_id": f"6c1f5f0e-3d0a-5f5e-9a5b-{number:012x}",
            "expires_at": self._expires_at,
        }


def plain_metadata(number: int, now: datetime, ids: IdSource, *, source: str) -> dict[str, Any]:
    """Return what the bus writes as metadata, made in the same way: fresh ids, the time of the publish."""
    return {
        "event_id": ids.new(),
        "event_type": EVENT_TYPE,
        "trace_id": ids.new(),
        "causation_id": None,
        "timestamp": now,
        "source": source,
        "sequence": number,
        "version": "3.0",
    }
