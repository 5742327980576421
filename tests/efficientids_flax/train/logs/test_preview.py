"""The picture of a schedule: the right points, a file, and a clear error without matplotlib."""

import sys
from typing import Any

import numpy as np
import optax
import pytest

from efficientids_flax.train.logs.preview import POINTS, plot_schedule, schedule_points
from efficientids_flax.train.optimizer.schedules import create_learning_rate_schedule


def test_every_step_of_a_short_run():
    steps, rates = schedule_points(create_learning_rate_schedule(0.5, 2, 6, "linear"), 6)
    np.testing.assert_array_equal(steps, np.arange(7))
    np.testing.assert_allclose(rates, [0, 0.25, 0.5, 0.375, 0.25, 0.125, 0], atol=1e-7)


def test_a_long_run_from_its_first_to_its_last_step():
    steps, rates = schedule_points(optax.cosine_decay_schedule(1.0, 10**6), 10**6)
    assert (len(steps), steps[0], steps[-1], len(rates)) == (POINTS, 0, 10**6, POINTS)
    assert np.abs(rates - (1 + np.cos(np.pi * steps / 1e6)) / 2).max() < 1e-6


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_draws(tmp_path: Any, suffix: str):
    path = tmp_path / "new" / f"rate.{suffix}"
    assert plot_schedule(create_learning_rate_schedule(0.5, 2, 60), 60, str(path)) == path
    begins = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(begins)
    flat = plot_schedule(0.5, 60, tmp_path / f"flat.{suffix}")
    assert flat.read_bytes() != path.read_bytes()


def test_without_matplotlib(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib.*pip install 'efficientids-flax\[plots\]'"):
        plot_schedule(0.5, 60, tmp_path / "rate.png")
    assert not list(tmp_path.iterdir())


def test_a_run_without_steps(tmp_path: Any):
    with pytest.raises(ValueError, match="total_steps: expected at least 1, found 0"):
        plot_schedule(0.5, 0, tmp_path / "rate.png")
