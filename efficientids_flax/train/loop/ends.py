"""Errors that end a run: the step was not taken in any process; the state is the one before it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.train.loop.running import Run
from efficientids_flax.train.optimizer import RATE
from efficientids_flax.train.state import ProcessFault, of_each
from efficientids_flax.train.step import FAULT, WEIGHT, NonFiniteError, WrongValues
from efficientids_flax.tree import leaves_by_path

REFUSED = (NonFiniteError, WrongValues, ProcessFault)


def first_end(found: np.ndarray) -> int | None:
    """Which of some steps is the first that ends the run, by the metrics of each [steps, ...]."""
    bad = found[:, -1] == 0
    return int(bad.argmax()) if bad.any() else None


def end_of(
    run: Run,
    step: int,
    found: np.ndarray,
    batch: Any,
    *,
    fault: Callable[[int], Exception],
    explain: Callable[[Any], str],
) -> Exception:
    """The error that ends the run at a step.

    Args:
        run: see `Run`.
        step: number of the step.
        found: metrics of the step, and its counts of wrong values.
        batch: batch of the step.
        fault: step -> error if a process had no batch.
        explain: batch -> what became non-finite first in the step.
    """
    names, fields = run.step.names, run.step.fields
    counts = dict(zip(fields, found[len(names) :].astype(int).tolist(), strict=False))
    if counts.pop(FAULT, 0):
        return fault(step)
    if wrong := {name: count for name, count in counts.items() if count}:
        return WrongValues(f"step {step}: {run.look(wrong, batch)}")
    values = dict(zip(names, found.tolist(), strict=False))
    rate = values.get(RATE, 0.0)
    if not (np.isfinite(rate) and rate >= 0):
        given = "a rate below 0, which would raise the loss" if rate < 0 else "no number for it"
        return NonFiniteError(
            f"step {step}: {RATE} {rate:.6g}: the schedule gives {given}; the steps before it stay"
        )
    if not np.isfinite(weight := values.get(WEIGHT, 0.0)):
        return NonFiniteError(
            f"step {step}: {WEIGHT} {weight:.6g}: the loss function gave no number for it; the"
            " steps before it stay"
        )
    return NonFiniteError(
        f"step {step}: loss {values['loss']:.6g}, gradient norm {values['grad_norm']:.6g}:"
        f" {explain(batch)}; the steps before it stay (on_nonfinite='skip' leaves such steps out)"
    )


def not_finite(params: Mapping[str, Any]) -> str | None:
    """The first parameter that is not finite; an update can do that with a finite gradient."""
    flags = of_each(_is_finite, leaves_by_path(params))
    return next((path for path, flag in flags.items() if not flag), None)


@jax.jit  # in one pass, without an array of truth values as large as the leaf
def _is_finite(leaf: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(leaf))


def spoilt(step: int, path: str) -> NonFiniteError:
    """The error for an update that has made a parameter infinite or NaN."""
    return NonFiniteError(
        f"step {step}: parameter {path} is not finite after it, though the loss and the gradient"
        " were: the update made it so, for example by a rate or a decay that is NaN"
    )
