"""Plot a learning-rate schedule before starting a run with it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.train.logs.curves import MISSING, draw

POINTS = 2001  # at most; more than an image has columns


def schedule_points(schedule: Callable[[Any], Any] | float, total_steps: int) -> tuple[Any, Any]:
    """Values of a schedule over a run.

    Args:
        schedule: a number, or a function of the number of steps that works under `jax.vmap`.
        total_steps: the last step; steps 0 and `total_steps` are both included.

    Returns:
        (steps int32 [P], rates float32 [P]), P at most `POINTS`, evenly spaced.

    Raises:
        ValueError: `total_steps` is below 1.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps: expected at least 1, found {total_steps}")
    steps = np.linspace(0, total_steps, min(total_steps + 1, POINTS)).round().astype(np.int32)
    if not callable(schedule):
        return steps, np.full(steps.shape, schedule, np.float32)
    rates = jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32))(jnp.asarray(steps))
    return steps, np.asarray(rates)


def plot_schedule(
    schedule: Callable[[Any], Any] | float, total_steps: int, save_path: str | os.PathLike[str]
) -> Path:
    """Draw a schedule.

    Args:
        schedule, total_steps: see `schedule_points`.
        save_path: image file; its suffix determines the format (.png, .svg, .pdf).

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `total_steps` is below 1.
    """
    steps, rates = schedule_points(schedule, total_steps)
    path = Path(save_path)
    if not draw([{"learning rate": (steps.tolist(), rates.tolist())}], path):
        raise ImportError(f"plot_schedule: {MISSING}")
    return path
