"""Policy values as people write and read them: ``5x``, ``1%``, ``on``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InvalidInputError
from shared.policy.changes import require_field
from shared.telemetry.masking import printable
from shared.trading.policy import POLICY_UNITS, Fraction, Percent, PolicyUnit, to_fraction, to_percent

_SWITCH: Mapping[str, bool] = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
_EXAMPLES: Mapping[PolicyUnit, str] = {
    PolicyUnit.FRACTION: "a fraction or a percentage, such as 0.01 or 1%",
    PolicyUnit.TIMES: "a number, such as 5 or 0.5",
    PolicyUnit.USD: "an amount in USD, such as 200",
    PolicyUnit.COUNT: "a whole number",
    PolicyUnit.SWITCH: "on or off",
}


def read_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the values by field that ``FIELD=VALUE`` arguments name.

    Raises:
        InvalidInputError: An argument is no assignment, names no field or one twice, or has a value of another kind.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        if not sign:
            raise InvalidInputError(
                f"{printable(assignment)!r} is no assignment; write FIELD=VALUE, such as max_leverage=5"
            )
        require_field(name)
        if name in values:
            raise InvalidInputError(f"{name} is named twice")
        values[name] = _read(name, text.strip())
    return values


def shown(name: str, value: Any) -> str:
    """Return a value with its unit; fractions with their percentage."""
    match POLICY_UNITS.get(name):
        case PolicyUnit.FRACTION:
            return f"{value:g} ({to_percent(Fraction(value)):g} %)"
        case PolicyUnit.TIMES:
            return f"{value:g}x"
        case PolicyUnit.USD:
            return f"{value:,.10g} USD"
        case PolicyUnit.SWITCH:
            return "on" if value else "off"
        case _:
            return str(value)


def _read(name: str, text: str) -> Any:
    unit = POLICY_UNITS[name]
    try:
        match unit:
            case PolicyUnit.SWITCH:
                return _SWITCH[text.lower()]
            case PolicyUnit.COUNT:
                return int(text)
            case PolicyUnit.FRACTION if text.endswith("%"):
                return float(to_fraction(Percent(float(text[:-1]))))
            case PolicyUnit.TIMES:
                return float(text.removesuffix("x"))
            case _:
                return float(text)
    except (ValueError, KeyError):
        raise InvalidInputError(f"{name}={printable(text)[:80]!r} is wrong: must be {_EXAMPLES[unit]}") from None
