"""Training: repeatable, honest on data that holds nothing, able to find what is there."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from services.ai_service.domain.features import FEATURE_NAMES, WINDOW_CANDLES
from services.ai_service.ports import TrainingProgress
from services.ai_service.training.dataset import Dataset, build_dataset
from services.ai_service.training.lightgbm_training import train_lightgbm
from services.ai_service.training.pipeline import TrainingPlan, fetch_candles, train_model, training_end
from services.ai_service.training.validation import area_under_curve, log_loss, walk_forward
from shared.errors import InvalidInputError
from tests.support.ai_market import NOON, RULE, MemoryHistory, trained, walk

PLAN = TrainingPlan(("BTCUSDT", "ETHUSDT"), "1m", RULE, 700, 400, 3)


def made_up(rows: int, skill: float) -> Dataset:
    """Return rows one minute apart whose first feature tells ``skill`` times as much as chance does."""
    rng = np.random.default_rng(11)  # of its own: tests run in any order
    features = rng.normal(0, 1, (rows, len(FEATURE_NAMES)))
    went_up = rng.random(rows) < 1 / (1 + np.exp(-skill * features[:, 0]))
    opened = np.arange(rows, dtype=np.int64) * 60_000
    return Dataset(features, went_up, np.where(went_up, 1.0, -1.0), np.ones(rows), opened, opened + 300_000)


def test_the_same_data_gives_the_same_model_byte_for_byte() -> None:
    manifest, text = trained()
    candles = {symbol: walk(700, seed=number, symbol=symbol, memory=0.5) for number, symbol in enumerate(PLAN.symbols)}

    again, text_again = train_model(PLAN, candles, NOON, lambda _: None)

    assert text_again == text
    assert again == manifest
    assert manifest.sha256 == hashlib.sha256(text).hexdigest()
    assert manifest.version.endswith(manifest.sha256[:10])


def test_another_process_makes_the_same_model() -> None:
    program = (
        "import hashlib; from tests.support.ai_market import trained; print(hashlib.sha256(trained()[1]).hexdigest())"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == trained()[0].sha256


def test_another_seed_or_other_data_gives_another_model() -> None:
    candles = {symbol: walk(700, seed=number, symbol=symbol, memory=0.5) for number, symbol in enumerate(PLAN.symbols)}
    _, other_seed = train_model(dataclasses.replace(PLAN, seed=4), candles, NOON, lambda _: None)
    less = {symbol: series[:-1] for symbol, series in candles.items()}
    _, other_data = train_model(PLAN, less, NOON, lambda _: None)

    assert len({trained()[1], other_seed, other_data}) == 3


def test_what_is_there_is_found_and_what_is_not_is_not() -> None:
    skilled = train_lightgbm(made_up(4_000, skill=1.0), seed=1)
    blind = train_lightgbm(made_up(4_000, skill=0.0), seed=1)

    assert skilled.metrics["auc"] > 0.7
    assert skilled.metrics["log_loss"] < skilled.metrics["log_loss_baseline"] - 0.03
    assert abs(blind.metrics["auc"] - 0.5) < 0.03
    assert blind.calibration.probability(blind.calibration.centre + 0.5) < 0.54


def test_labels_that_were_shuffled_teach_nothing() -> None:
    """A leak from the label into the features, or over the edge of a fold, would show here."""
    candles = {"BTCUSDT": walk(2_500, seed=5, memory=0.5)}
    data = build_dataset(candles, RULE)
    shuffled = dataclasses.replace(data, went_up=np.random.default_rng(12).permutation(data.went_up))

    assert train_lightgbm(data, seed=1).metrics["auc"] > 0.6
    assert abs(train_lightgbm(shuffled, seed=1).metrics["auc"] - 0.5) < 0.05


def test_no_training_label_reaches_into_its_test() -> None:
    data = build_dataset({symbol: walk(900, symbol=symbol) for symbol in ("BTCUSDT", "ETHUSDT")}, RULE)

    splits = walk_forward(data, 4)

    assert len(splits) == 4
    for split in splits:
        assert data.decided_ms[split.train].max() < data.opened_ms[split.test].min()
    tested = np.concatenate([split.test for split in splits])
    assert len(np.unique(tested)) == len(tested)
    assert tested.max() == len(data) - 1


def test_purging_takes_out_exactly_the_labels_that_overlap() -> None:
    data = made_up(100, skill=0)

    split = walk_forward(data, 1)[0]

    # The test begins in the middle; labels take five minutes to be decided.
    assert split.test[0] == 50
    assert split.train[-1] == 44


def test_too_little_data_for_the_folds_is_said() -> None:
    with pytest.raises(InvalidInputError, match="too few for 4 folds"):
        walk_forward(made_up(6, skill=0), 4)


def test_a_hole_in_the_candles_is_never_looked_across() -> None:
    candles = walk(600)
    holed = [*candles[:300], *candles[310:]]

    data = build_dataset({"BTCUSDT": holed}, RULE)

    whole = {int(moment) for moment in build_dataset({"BTCUSDT": candles}, RULE).opened_ms}
    missing = {candle.open_time for candle in candles[300 - RULE.horizon_candles : 310 + WINDOW_CANDLES - 1]}
    left = {datetime.fromtimestamp(moment / 1000, UTC) for moment in data.opened_ms}
    assert left.isdisjoint(missing)
    assert len(left) > 250
    assert {int(moment) for moment in data.opened_ms} <= whole


def test_candles_that_are_too_few_or_never_move_are_said() -> None:
    with pytest.raises(InvalidInputError, match="no symbol has 133 candles in a row"):
        build_dataset({"BTCUSDT": walk(100)}, RULE)
    still = [dataclasses.replace(candle, open=1, high=1, low=1, close=1) for candle in walk(200)]
    with pytest.raises(InvalidInputError, match="did not move"):
        build_dataset({"BTCUSDT": still}, RULE)


def test_rows_that_share_their_candles_with_others_weigh_less() -> None:
    candles = walk(400)

    data = build_dataset({"BTCUSDT": candles}, RULE)

    assert data.weight.mean() == pytest.approx(1.0)
    assert data.weight[0] > data.weight[len(data) // 2]  # the first label shares its candles with later ones only


def test_the_manifest_tells_what_was_seen_and_how_well_it_went() -> None:
    manifest, _ = trained()

    assert set(manifest.data) == {"BTCUSDT", "ETHUSDT"}
    assert manifest.data_end == NOON + timedelta(minutes=700)
    assert manifest.data["BTCUSDT"].candles == 700
    assert {"auc", "log_loss", "log_loss_baseline", "accuracy"} <= set(manifest.metrics)
    assert manifest.stage == "bootstrap"


def test_progress_never_goes_back_and_ends_near_the_end() -> None:
    told: list[TrainingProgress] = []

    train_model(PLAN, {"BTCUSDT": walk(1_200), "ETHUSDT": walk(1_200, seed=2)}, NOON, told.append)

    done = [progress.progress_pct for progress in told]
    assert done == sorted(done)
    assert done[0] < 60
    assert 95 < done[-1] <= 100


async def test_a_history_that_is_too_short_says_what_it_lacks() -> None:
    history = MemoryHistory(walk(300, start=NOON))

    with pytest.raises(InvalidInputError, match=r"has 300 1m candles of BTCUSDT .* a model needs 400"):
        await fetch_candles(PLAN, history, NOON + timedelta(minutes=300), lambda _: None)


async def test_candles_are_fetched_up_to_the_end_and_no_further() -> None:
    history = MemoryHistory([candle for symbol in PLAN.symbols for candle in walk(1_000, symbol=symbol)])

    found = await fetch_candles(PLAN, history, NOON + timedelta(minutes=800), lambda _: None)

    assert {symbol: len(candles) for symbol, candles in found.items()} == {"BTCUSDT": 700, "ETHUSDT": 700}
    assert found["BTCUSDT"][-1].close_time == NOON + timedelta(minutes=800)


def test_trainings_of_the_same_hour_end_at_the_same_candle() -> None:
    assert training_end(NOON + timedelta(minutes=1), "1m") == training_end(NOON + timedelta(minutes=59), "1m") == NOON
    assert training_end(NOON, "1h") <= NOON


def test_area_under_the_curve_by_hand() -> None:
    outcomes = np.array([False, False, True, True])

    assert area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), outcomes) == 0.75
    assert area_under_curve(np.array([0.5, 0.5, 0.5, 0.5]), outcomes) == 0.5
    assert area_under_curve(np.array([1.0, 2.0]), np.array([True, True])) == 0.5


def test_log_loss_by_hand() -> None:
    assert log_loss(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(np.log(2))
    assert log_loss(np.array([0.9, 0.2]), np.array([True, False])) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)
    assert np.isfinite(log_loss(np.array([0.0]), np.array([True])))
