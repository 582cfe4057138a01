"""The instrument itself: books that show a lost, a doubled and an overtaken event."""

from __future__ import annotations

from pathlib import Path

from tests.support.chaos_books import ALL_IS_WELL, Effects, Findings, Ledger, compare
from tests.support.chaos_events import Lane

BTC = Lane("order.updated", "BTCUSDT")
ETH = Lane("order.updated", "ETHUSDT")
PUBLISHED = [(BTC, 1), (ETH, 1), (BTC, 2), (BTC, 3)]


def test_all_is_well_when_every_event_had_one_effect_in_the_order_of_its_lane() -> None:
    assert compare(PUBLISHED, [(ETH, 1), (BTC, 1), (BTC, 2), (BTC, 3)]) == ALL_IS_WELL


def test_a_missing_a_doubled_and_an_overtaken_event_are_named() -> None:
    found = compare(PUBLISHED, [(BTC, 1), (BTC, 3), (BTC, 2), (BTC, 1)])

    assert found == Findings(missing=((ETH, 1),), doubled=((BTC, 1),), overtaken=((BTC, 2),))


def test_the_inbox_lets_one_effect_through_and_counts_the_repeat(tmp_path: Path) -> None:
    effects = Effects(tmp_path / "effects")

    for _ in range(2):
        effects.record(BTC.event_id(1), BTC, 1)

    assert list(effects.events()) == [(BTC, 1)]
    assert effects.count("repeats") == 1
    effects.close()


def test_a_line_that_a_kill_tore_apart_was_never_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.append([(BTC, 1), (ETH, 1)])
    with (tmp_path / "ledger").open("a") as file:
        file.write("order.updated BTCU")

    assert list(ledger.events()) == [(BTC, 1), (ETH, 1)]
    assert ledger.count() == 2
