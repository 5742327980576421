"""Takes one of our optimizer steps, and measures how far the rounding of gradients reaches."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from efficientids_flax.tree import flatten, unflatten
from parity_tests.recording import Recording, Step, form
from parity_tests.run.activations import Subject, run
from parity_tests.run.parameters import place, to_our_tree

# The gradients of two exact implementations differ by some roundings (2^-24) of their summands,
# which are as large as the model's largest gradient. Adam divides a gradient by its own size, so a
# parameter may move that far without any fault: within this reach, two steps cannot be told apart.
GRADIENT_ROUNDING = 2.0**-22


class Made(NamedTuple):
    """A step of ours: loss and gradients, and the parameters and optimizer state after it.

    `reach` is how far the rounding of gradients, in this and earlier steps, moves parameters.
    """

    loss: np.ndarray
    gradients: Mapping[str, np.ndarray]
    parameters: Mapping[str, np.ndarray]
    state: Any
    reach: Mapping[str, np.ndarray] = {}


def take_step(before: Subject, recording: Recording, step: Step, update: Any, state: Any) -> Made:
    """Take a step from a model and its optimizer state.

    Args:
        before: the model.
        recording, step: the recorded step; its batch is used, and its gradients if it has any.
        update: jitted update function of the optimizer.
        state: state of the optimizer.
    """
    # With intermediate values it is the program of a pass on such a batch.
    inside = form(step.run) in map(form, recording.passes)
    ours = run(before, step.run, inside=inside)
    gradients = dict(ours.gradients)
    if step.gradients:
        given = to_our_tree(step.gradients, recording.names, before)
        gradients |= {path: value for path, (value, _) in given.items()}
    after, state = updated(before.params, _tree(before, gradients), update, state)
    return Made(ours.values["outputs/total_loss"], gradients, after, state)


def _tree(before: Subject, gradients: Mapping[str, np.ndarray]) -> Any:
    """The gradients of a model's parameters, nested and in the parameters' dtypes."""
    like = flatten(before.params)
    return unflatten(place({path: gradients[path] for path in like}, like))


def updated(
    before: Mapping[str, Any], gradients: Any, update: Any, state: Any
) -> tuple[dict[str, np.ndarray], Any]:
    """Parameters by path and optimizer state, after a step from nested parameters."""
    with jax.default_matmul_precision("highest"):
        updates, state = update(gradients, state, before)
    updates, state = jax.device_get((updates, state))
    moved = flatten(updates)
    after = {
        path: np.asarray(value + moved[path] if path in moved else value)
        for path, value in flatten(before).items()
    }
    return after, state


def with_reach(
    made: Made, before: Subject, step: Step, update: Any, states: list[Any]
) -> tuple[Made, list[Any]]:
    """Add the reach to a step; also return the two states whose gradients were nudged.

    Recorded gradients have no rounding, and neither has a gradient that is exactly zero.

    Args:
        made: the step.
        before, step, update: what the step was made from.
        states: the two nudged states before the step.
    """
    size = 0.0 if step.gradients else GRADIENT_ROUNDING * largest_of(made.gradients)
    reach: dict[str, np.ndarray] = {}
    grown = []
    for way, state in zip((size, -size), states, strict=True):
        nudged = {path: slope + way * (slope != 0) for path, slope in made.gradients.items()}
        after, own = updated(before.params, _tree(before, nudged), update, state)
        grown.append(own)
        for path, value in after.items():
            off = np.abs(np.asarray(value - made.parameters[path], np.float64))
            reach[path] = np.maximum(reach.get(path, 0.0), off)
    return made._replace(reach=reach), grown


def largest_of(gradients: Mapping[str, np.ndarray]) -> float:
    """The largest magnitude of any gradient."""
    return max(float(np.max(np.abs(slope), initial=0)) for slope in gradients.values())
