"""Fine-tuning: the loss by its formula, windows by hand; the recorded one is in parity tests."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from converters import convert
from efficientids_flax import Trainer, trainer_from_converted
from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast import (
    TimesFM,
    forecast,
    forecast_loss,
    training_windows,
)
from efficientids_flax.stored import load_model
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.tree import flatten

CONFIG = TimesFMConfig(
    1, 8, 8, 2, 4, patch_length=4, horizon_length=8, quantiles=(0.1, 0.9), context_length=16
)


def test_the_loss_is_squared_error_and_twice_the_pinball_losses():
    random = np.random.default_rng(0)
    values, future = random.normal(size=(3, 2, 8, 3)), random.normal(size=(3, 5))
    made = values[:, -1, :5]
    wanted = np.square(made[..., 0] - future)
    for place, level in enumerate(CONFIG.quantiles, start=1):
        off = future - made[..., place]
        wanted += 2 * np.maximum(level * off, (level - 1) * off)
    found = forecast_loss(CONFIG, np.float32(values), future)
    np.testing.assert_allclose(found.loss, wanted.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.squared_error + found.quantile_loss, found.loss, rtol=1e-6)
    holes = np.zeros((3, 5))
    holes[0] = 1  # a row that does not count
    some = forecast_loss(CONFIG, np.float32(values), future, holes)
    np.testing.assert_allclose(some.loss, wanted[1:].mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="found 9 points, a step forecasts 8"):
        forecast_loss(CONFIG, np.float32(values), np.zeros((3, 9)))


def test_windows_end_where_their_future_begins():
    found = training_windows({"a": np.arange(6.0)}, 4, 2)
    np.testing.assert_array_equal(found["actual_ts"], [[4, 5], [3, 4], [2, 3], [1, 2]])
    np.testing.assert_array_equal(found["input_ts"][1], [0, 0, 1, 2])
    np.testing.assert_array_equal(found["input_padding"].sum(1), [0, 1, 2, 3])
    assert len(training_windows([np.arange(6.0)], 4, 2, stride=3)["freq"]) == 2
    with pytest.raises(ValueError, match="series 0: not longer than the horizon"):
        training_windows([np.arange(2.0)], 4, 2)


def waves(count: int = 120) -> np.ndarray:
    return 5 + np.sin(np.arange(count) * 2 * np.pi / 12)


WINDOWS = training_windows([waves()], 16, 8)
BATCHES = ShuffledBatches(WINDOWS, 24)
FIRST = {name: values[:24] for name, values in WINDOWS.items()}


def trained(place: Path, *steps: int) -> tuple[Trainer, Any]:
    """Trained in one go, or interrupted."""
    trainer = state = None
    for count in steps:
        trainer = Trainer(
            TimesFM(CONFIG), optax.adam(3e-3), place, frozen_params=["decoder"],
            save_every=100, progress="none", plot=False,
        )  # fmt: skip
        state = trainer.create_train_state(jax.random.key(0), FIRST)
        state = trainer.train(state, BATCHES, num_steps=count)
    assert trainer is not None
    return trainer, state


def test_the_trainer_learns_with_frozen_layers_and_writes_a_model(tmp_path: Path):
    trainer, state = trained(tmp_path / "run", 60)
    fresh = trainer.create_train_state(jax.random.key(0), FIRST)
    before, after = trainer.evaluate(fresh, [FIRST]), trainer.evaluate(state, [FIRST])
    assert after["eval_loss"] < 0.6 * before["eval_loss"]
    assert 0 < after["eval_squared_error"] < after["eval_loss"]
    trainer.export(state, tmp_path / "out")
    model, params, config = load_model(tmp_path / "out")
    assert isinstance(model, TimesFM)
    assert config.model == CONFIG
    assert np.isfinite(forecast(model, params, [waves()], 8).mean).all()
    start, end = flatten(fresh.params), flatten(params)
    moved = {path for path in start if not np.array_equal(start[path], np.asarray(end[path]))}
    assert moved
    assert not [path for path in moved if path.startswith("decoder/")]


def test_a_run_that_was_interrupted_ends_where_a_whole_one_does(tmp_path: Path):
    _, whole = trained(tmp_path / "whole", 6)
    _, parts = trained(tmp_path / "parts", 3, 6)
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)


def test_the_trainer_takes_the_step_that_paxml_took_next(
    recording: Callable[[str], Path], tmp_path: Path
):
    """`trainer_from_converted`: loss, parameters, and a run that goes on at PAXml's step."""
    case = recording("TimesFM_finetuned")
    schedule = {"initial_value": 1e-3, "final_value": 1e-4, "total_steps": 40_000}
    learner = {
        "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7, "clip_threshold": 100.0,
        "learning_rate": 0.01, "ema_decay": 0.9999,
        "schedule": {"kind": "cosine", "parameters": schedule},
    }  # fmt: skip
    given = {"use_positional_embedding": True, "context_length": 64, "horizon_length": 16}
    convert(case / "checkpoint", tmp_path / "out", overrides={**given, **learner})
    arrays = np.load(case / "reference.npz")
    batch = {name: arrays[f"in/{name}"] for name in ("input_ts", "actual_ts")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what no tree tells
        trainer, state = trainer_from_converted(tmp_path / "out", batch, progress="none")
    with jax.default_matmul_precision("highest"):
        loss = trainer.evaluate(state, [batch])["eval_loss"]
        state = trainer.train(state, [batch], num_steps=3)
    np.testing.assert_allclose(loss, arrays["eval_mode/loss"], rtol=1e-6)
    assert int(state.step) == 3
    after = np.load(case / "expected_next_state.npz")
    for ours, theirs in (("hidden", "hidden_layer"), ("output", "output_layer")):
        name = f".mdl_vars['params']['core_layer']['horizon_ff_layer']['{theirs}']['linear']['w']"
        found = np.asarray(state.params["horizon_block"][ours]["kernel"])
        np.testing.assert_allclose(found, after[name], rtol=0, atol=1e-6)
