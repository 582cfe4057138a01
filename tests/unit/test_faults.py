"""Conditions of faults: when one strikes, how often, and that a seed repeats it."""

from __future__ import annotations

import pytest

from infrastructure.paper_exchange.faults import FAULTS, Fault, Faults, Scene
from shared.errors import InvalidInputError

ORDER = Scene(method="POST", path="/fapi/v1/order", client_ids=("bot-1",), symbols=("BTCUSDT",))


def strikes(faults: Faults, times: int, kind: str = "lose_order", scene: Scene = ORDER) -> list[bool]:
    return [faults.strike(kind, scene) is not None for _ in range(times)]


def test_count_and_after() -> None:
    faults = Faults()
    faults.arm(Fault("lose_order", count=2, after=1))
    assert strikes(faults, 4) == [False, True, True, False]
    assert faults.armed() == ()
    faults.arm(Fault("lose_order", count=0))
    assert all(strikes(faults, 50))


@pytest.mark.parametrize(
    ("fault", "fits"),
    [
        (Fault("lose_order"), True),
        (Fault("lose_order", client_id="bot-"), True),
        (Fault("lose_order", client_id="hand-"), False),
        (Fault("lose_order", symbol="ETHUSDT"), False),
        (Fault("lose_order", method="DELETE"), False),
        (Fault("lose_order", path="/fapi/v1/algo"), False),
        (Fault("lose_order", method="POST", path="/fapi/v1/order"), True),
        (Fault("lose_order_answer"), False),
    ],
)
def test_conditions(fault: Fault, fits: bool) -> None:
    faults = Faults()
    faults.arm(fault)
    assert strikes(faults, 1) == [fits]


def test_an_order_fault_meets_other_requests_only_when_it_names_them() -> None:
    cancel = Scene(method="DELETE", path="/fapi/v1/order", is_usual=False)
    faults = Faults()
    faults.arm(Fault("lose_order"))
    assert strikes(faults, 1, scene=cancel) == [False]
    faults.arm(Fault("lose_order", method="DELETE"))
    assert strikes(faults, 1, scene=cancel) == [True]


def test_time_and_names_of_streams() -> None:
    faults = Faults()
    faults.arm(Fault("lose_order", start=10), now=100)
    assert faults.strike("lose_order", ORDER, 109.9) is None
    assert faults.strike("lose_order", ORDER, 110) is not None
    faults.arm(Fault("drop_market_message", event="@kline"))
    assert faults.strike("drop_market_message", Scene(event="btcusdt@bookTicker")) is None
    assert faults.strike("drop_market_message", Scene(event="btcusdt@kline_1m")) is not None
    faults.arm(Fault("drop_user_event", event="ALGO_UPDATE"))
    assert faults.strike("drop_user_event", Scene(event="ALGO")) is None


def test_what_happens_by_itself_happens_once_and_may_wait_for_a_request() -> None:
    faults = Faults()
    faults.arm(Fault("close_streams", count=5, start=1), now=0)
    faults.arm(Fault("liquidate", symbol="BTCUSDT", after=1), now=0)
    assert faults.due_acts(0.5) == []
    assert [fault.kind for fault in faults.due_acts(1)] == ["close_streams"]
    assert faults.due_acts(2) == []
    assert [len(faults.acts_after(ORDER, 3)) for _ in range(3)] == [0, 1, 0]
    faults.arm(Fault("close_streams", probability=0))
    assert faults.due_acts(9) == []
    assert faults.armed() == ()
    assert faults.struck == ["close_streams", "liquidate"]


def test_a_seed_repeats_the_draws() -> None:
    script = [Fault("lose_order", probability=0.3, count=0), Fault("reset_after", probability=0.5, count=0)]
    seen = []
    for seed in (1, 1, 2):
        faults = Faults()
        faults.run_script(script, seed)
        seen.append([strikes(faults, 40), strikes(faults, 40, "reset_after")])
    assert seen[0] == seen[1] != seen[2]


def test_a_script_with_one_wrong_fault_changes_nothing() -> None:
    faults = Faults()
    faults.arm(Fault("lose_order"))
    with pytest.raises(InvalidInputError, match="earthquake"):
        faults.run_script([Fault("reset_after"), Fault("earthquake")], 1)
    assert [fault.kind for fault in faults.armed()] == ["lose_order"]


def test_the_table_says_something_of_each_kind() -> None:
    assert all(row.text for row in FAULTS.values())
    assert len({row.text for row in FAULTS.values()}) == len(FAULTS)
