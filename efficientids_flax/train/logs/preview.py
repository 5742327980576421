"""A picture of a learning-rate schedule, before a run is begun with it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.train.logs.curves import MISSING, draw

POINTS = 2001  # at most; more than a picture has columns


def schedule_points(schedule: Callable[[Any], Any] | float, total_steps: int) -> tuple[Any, Any]:
    """Values of a schedule over a run.

    Args:
        schedule: a function of the number of steps taken that `jax.vmap` takes, or a number.
        total_steps: the last step, which is in it; so is step 0.

    Returns:
        (steps int32 [P], rates float32 [P]), P at most `POINTS`, evenly spread.

    Raises:
        ValueError: there is no step.
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
        save_path: of the picture, by whose suffix its format goes (.png, .svg, .pdf).

    Returns:
        The path.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: there is no step.
    """
    steps, rates = schedule_points(schedule, total_steps)
    path = Path(save_path)
    if not draw([{"learning rate": (steps.tolist(), rates.tolist())}], path):
        raise ImportError(f"plot_schedule: {MISSING}")
    return path
