"""The perpetual contracts that are listed here: filters and leverage brackets in the shape of Binance's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from infrastructure.paper_exchange.modes import SymbolStatus
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO

MAKER_FEE = Decimal("0.0002")
TAKER_FEE = Decimal("0.0005")
DEFAULT_LEVERAGE = 20


@dataclass(frozen=True, slots=True)
class Bracket:
    """One step of the leverage ladder.

    Attributes:
        number: 1, 2, ... upwards with notional.
        leverage: Highest leverage of a position whose notional lies in this bracket.
        floor: Lower notional bound, USDT.
        cap: Upper notional bound, USDT.
        maintenance_rate: Share of the notional that must stay as margin.
        cum: Amount that makes the maintenance margin continuous over the bounds, USDT.
    """

    number: int
    leverage: int
    floor: Decimal
    cap: Decimal
    maintenance_rate: Decimal
    cum: Decimal


@dataclass(frozen=True, slots=True)
class Contract:
    """One listed perpetual.

    Attributes:
        instrument: Grid and size limits.
        price_precision: Digits after the point that a price may be sent with; more is -1111.
        quantity_precision: Likewise for quantities.
        min_price: Lowest limit price, USDT; likewise ``max_price``.
        multiplier_up: A BUY price may not exceed mark price times this; ``multiplier_down`` bounds a SELL.
        brackets: Leverage ladder, lowest notional first.
        max_open_orders: Resting orders per symbol.
        max_algo_orders: Untriggered conditional orders per symbol.
        status: What it may be used for; anything but TRADING takes no order that opens.
        maker_fee: Share of the value that a resting order pays; likewise ``taker_fee``.
        liquidation_fee: Share of the value that a liquidation pays into the insurance fund.
        trigger_protect: Distance of last and mark price, as a share, that stops protected triggers.
        funding_interval: Time between two settlements.
        funding_cap: Highest funding rate of one settlement; its negative is the lowest.
    """

    instrument: Instrument
    price_precision: int
    quantity_precision: int
    min_price: Decimal
    max_price: Decimal
    multiplier_up: Decimal
    multiplier_down: Decimal
    brackets: tuple[Bracket, ...]
    max_open_orders: int = 200
    max_algo_orders: int = 100
    status: SymbolStatus = SymbolStatus.TRADING
    maker_fee: Decimal = MAKER_FEE
    taker_fee: Decimal = TAKER_FEE
    liquidation_fee: Decimal = Decimal("0.0125")
    trigger_protect: Decimal = Decimal("0.05")
    funding_interval: timedelta = timedelta(hours=8)
    funding_cap: Decimal = Decimal("0.03000000")

    @property
    def symbol(self) -> str:
        return self.instrument.symbol

    @property
    def base_asset(self) -> str:
        return self.symbol.removesuffix("USDT").removesuffix("USDC")

    @property
    def quote_asset(self) -> str:
        return self.symbol.removeprefix(self.base_asset)

    def bracket_for(self, notional: Decimal) -> Bracket:
        """Return the bracket that holds a position of ``notional`` USDT; the last one beyond every cap."""
        return next((bracket for bracket in self.brackets if notional <= bracket.cap), self.brackets[-1])

    def maintenance_margin(self, notional: Decimal) -> Decimal:
        """Return the maintenance margin of a position of ``notional`` USDT (notional x rate - cum)."""
        bracket = self.bracket_for(notional)
        return notional * bracket.maintenance_rate - bracket.cum

    def max_notional(self, leverage: int) -> Decimal:
        """Return the largest position, USDT, that ``leverage`` allows."""
        return max(bracket.cap for bracket in self.brackets if bracket.leverage >= leverage)


def build_brackets(ladder: Iterable[tuple[int, int, str]]) -> tuple[Bracket, ...]:
    """Return brackets from rows ``(cap in USDT, leverage, maintenance rate)``, lowest first."""
    brackets: list[Bracket] = []
    floor, cum, previous_rate = ZERO, ZERO, None
    for number, (cap, leverage, text) in enumerate(ladder, start=1):
        rate = Decimal(text)
        if previous_rate is not None:
            cum += floor * (rate - previous_rate)
        brackets.append(Bracket(number, leverage, floor, Decimal(cap), rate, cum))
        floor, previous_rate = Decimal(cap), rate
    return tuple(brackets)


_MAJOR_BRACKETS = build_brackets(
    [
        (300_000, 125, "0.004"),
        (800_000, 100, "0.005"),
        (3_000_000, 75, "0.0065"),
        (12_000_000, 50, "0.01"),
        (70_000_000, 25, "0.02"),
        (100_000_000, 20, "0.025"),
        (230_000_000, 10, "0.05"),
        (480_000_000, 5, "0.1"),
        (600_000_000, 4, "0.125"),
        (800_000_000, 3, "0.15"),
        (1_200_000_000, 2, "0.25"),
        (1_800_000_000, 1, "0.5"),
    ]
)
_OTHER_BRACKETS = build_brackets(
    [
        (10_000, 75, "0.0065"),
        (50_000, 50, "0.01"),
        (250_000, 25, "0.02"),
        (1_000_000, 20, "0.025"),
        (2_000_000, 10, "0.05"),
        (5_000_000, 5, "0.1"),
        (10_000_000, 4, "0.125"),
        (20_000_000, 2, "0.25"),
        (30_000_000, 1, "0.5"),
    ]
)

#: symbol: (tick size, lot step, largest limit quantity, largest market quantity, least notional)
_LISTED: dict[str, tuple[str, str, int, int, int]] = {
    "BTCUSDT": ("0.1", "0.001", 1_000, 120, 100),
    "ETHUSDT": ("0.01", "0.001", 10_000, 2_000, 20),
    "BNBUSDT": ("0.01", "0.01", 100_000, 2_000, 5),
    "SOLUSDT": ("0.001", "0.01", 1_000_000, 5_000, 5),
    "XRPUSDT": ("0.0001", "0.1", 10_000_000, 2_000_000, 5),
    "ADAUSDT": ("0.0001", "1", 10_000_000, 2_000_000, 5),
    "DOGEUSDT": ("0.00001", "1", 50_000_000, 30_000_000, 5),
    "TRXUSDT": ("0.00001", "1", 10_000_000, 5_000_000, 5),
    "LINKUSDT": ("0.001", "0.01", 1_000_000, 20_000, 20),
    "LTCUSDT": ("0.01", "0.001", 10_000, 5_000, 20),
    "BCHUSDT": ("0.01", "0.001", 10_000, 850, 20),
    "DOTUSDT": ("0.001", "0.1", 1_000_000, 300_000, 5),
    "ATOMUSDT": ("0.001", "0.01", 1_000_000, 20_000, 5),
    "FILUSDT": ("0.001", "0.1", 1_000_000, 100_000, 5),
    "ARUSDT": ("0.001", "0.1", 100_000, 5_000, 5),
    "SUIUSDT": ("0.0001", "0.1", 1_000_000, 300_000, 5),
    "THETAUSDT": ("0.0001", "0.1", 1_000_000, 500_000, 5),
}


def contract_for(symbol: str, price: float) -> Contract:
    """Return the contract of ``symbol``; an unlisted one gets a grid that suits its ``price`` in USDT."""
    tick, step, largest, largest_market, notional = _LISTED.get(symbol) or _grid_for(price)
    tick_size, lot_step = Decimal(tick), Decimal(step)
    major = symbol in ("BTCUSDT", "ETHUSDT")
    brackets = _MAJOR_BRACKETS if major else _OTHER_BRACKETS
    spread = Decimal("0.05") if major else Decimal("0.15")
    return Contract(
        instrument=Instrument(
            symbol=symbol,
            tick_size=tick_size,
            lot_step=lot_step,
            min_quantity=lot_step,
            max_quantity=Decimal(largest),
            max_market_quantity=Decimal(largest_market),
            min_notional=Decimal(notional),
            max_leverage=brackets[0].leverage,
            maintenance_rate=brackets[0].maintenance_rate,
        ),
        # As on Binance, one digit more than the tick: 0.05 on a tick of 0.1 is off the grid, 0.055 too precise.
        price_precision=_digits(tick_size) + 1,
        quantity_precision=_digits(lot_step),
        min_price=tick_size,
        max_price=tick_size * 50_000_000,
        multiplier_up=1 + spread,
        multiplier_down=1 - spread,
        brackets=brackets,
    )


def _grid_for(price: float) -> tuple[str, str, int, int, int]:
    """Five significant digits of price; a lot worth between 0.1 and 10 USDT."""
    magnitude = math.floor(math.log10(price))
    step = Decimal(1).scaleb(-max(0, magnitude))
    return f"{Decimal(1).scaleb(magnitude - 4):f}", f"{step:f}", 10_000_000, 1_000_000, 5


def _digits(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)
