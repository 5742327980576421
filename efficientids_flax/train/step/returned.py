"""What a loss function returns: checks of it, and the names of metrics that have a meaning."""

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

Metrics = dict[str, jax.Array]
WEIGHT = "total_weight"  # metric that weights the parts of an accumulated batch, if it is there
FINITE = "finite"
OWN = {FINITE, "grad_norm", "learning_rate", "step"}  # reserved names, beside 'loss'
WRONG = "wrong/"  # prefix of metrics that count a field's values out of range
# Prefixes reserved too: a training metric `eval_m` would be taken for one of an evaluation.
PREFIXES = (WRONG, "eval_", "test_")


def returned(found: Any) -> tuple[jax.Array, Metrics, Mapping[str, Any]]:
    """Check a loss function's result: (loss, metrics as arrays, model state).

    Raises:
        ValueError: the loss function returned something else.
    """
    if not isinstance(found, tuple | list) or len(found) != 3:
        told = f"{len(found)} values" if isinstance(found, tuple | list) else type(found).__name__
        raise ValueError(f"loss_fn: expected (loss, metrics, model_state), found {told}")
    loss, metrics, state = found
    if not isinstance(loss, jax.Array) or loss.ndim or not jnp.issubdtype(loss.dtype, jnp.floating):
        told = f"{list(loss.shape)} of {loss.dtype}" if isinstance(loss, jax.Array) else repr(loss)
        raise ValueError(
            f"loss_fn: expected a loss that is one number, an array of JAX made of the parameters,"
            f" found {told}"
        )
    if not isinstance(state, Mapping):
        raise ValueError(
            f"loss_fn: expected the model state that it was given, or a new one of the same tree,"
            f" found {state!r}"
        )
    return loss, scalars(metrics), state


def scalars(metrics: Mapping[str, Any]) -> Metrics:
    """The metrics as arrays.

    Raises:
        ValueError: naming each metric that is no real number, or has a reserved name.
    """
    if not isinstance(metrics, Mapping):
        raise ValueError(f"metrics: expected a dict of names to scalars, found {metrics!r}")
    if own := [str(name) for name in metrics if name in OWN or str(name).startswith(PREFIXES)]:
        raise ValueError(
            f"metrics: {', '.join(sorted(own))}: names of the trainer's own; choose others"
        )
    found = {name: _number(value) for name, value in metrics.items()}
    wrong = [
        f"{name!r} as a name" if not isinstance(name, str) else f"{name} is {_told(value)}"
        for name, value in metrics.items()
        if not isinstance(name, str) or found[name] is None
    ]
    if wrong:
        raise ValueError(f"metrics: expected scalars, found {', '.join(wrong)}")
    return cast(Metrics, found)


def _number(value: Any) -> jax.Array | None:
    """A real number as an array []; None: it is none."""
    try:
        found = jnp.asarray(float(value) if isinstance(value, int) else value)
    except (TypeError, ValueError):
        return None
    real = jnp.issubdtype(found.dtype, jnp.number) or found.dtype == jnp.bool_
    real &= not jnp.issubdtype(found.dtype, jnp.complexfloating)
    return found if real and not found.ndim else None


def _told(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):  # what is in it may be a tracer of JAX
        return f"a {type(value).__name__}"
    dtype, shape = getattr(value, "dtype", ""), getattr(value, "shape", None)
    return repr(value) if shape is None else str(list(shape)) if shape else f"of {dtype}"


def negative(weight: jax.Array) -> jax.Array:
    """Int32 [], 1 if a weight is below zero; such a one turns gradients around."""
    return (weight < 0).astype(jnp.int32)
