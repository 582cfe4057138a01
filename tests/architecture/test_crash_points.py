"""No effect without a crash point: every method of every port is said to change something or only to look."""

from __future__ import annotations

import inspect
from typing import Any, Protocol

from services.exec_risk_service import ports
from services.exec_risk_service.adapters.crash_points import PORTS


def protocols() -> set[type[Any]]:
    return {
        thing
        for _, thing in inspect.getmembers(ports, inspect.isclass)
        if Protocol in thing.__bases__ and thing.__module__ == ports.__name__
    }


def methods(port: type[Any]) -> set[str]:
    return {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}


def test_every_port_has_a_row() -> None:
    assert {row.port for row in PORTS} == protocols()


def test_every_method_is_an_effect_or_a_read() -> None:
    for row in PORTS:
        assert sorted((*row.effects, *row.reads)) == sorted(methods(row.port)), row.port.__name__
