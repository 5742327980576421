"""Diagnosis of what ends a run: the origin of the first NaN or infinity, values out of range."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from efficientids_flax.core.batch import check_values
from efficientids_flax.train.state import InAll, TrainState
from efficientids_flax.train.step.function import LossFn, NamedBatch, global_norm
from efficientids_flax.train.step.returned import WEIGHT
from efficientids_flax.tree import leaves_by_path

CALL = "__call__"
SHAPE = "shape"  # name of one more count, see `missing_rows`
INTERMEDIATES = "intermediates"


class NonFiniteError(FloatingPointError, InAll):
    """A step whose loss or gradient is not finite."""


class WrongValues(ValueError, InAll):
    """A batch had values out of range, such as ids; no step was taken."""


def told_values(reads: Any, counts: Mapping[str, int], batch: Mapping[str, Any]) -> str:
    """The message about wrong values that the step has counted.

    Args:
        reads: configuration of the model.
        counts: field -> number of wrong values.
        batch: if this process can read all of it, the message names the values.
    """
    if SHAPE in counts:
        return (
            "batch: the processes brought different shapes; in each step each must bring as many"
            " rows of the same shape"
        )
    if WEIGHT in counts:
        return (
            f"{WEIGHT}: the loss function gave a weight below 0, which would turn the gradient"
            " around; expected at least 0"
        )
    leaves = jax.tree.leaves(dict(batch))
    if all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves):
        try:
            check_values(reads, jax.tree.map(np.asarray, dict(batch)))
        except ValueError as error:
            return str(error)
    named = ", ".join(f"{count} in {name}" for name, count in counts.items())
    return f"batch: values out of range: {named}"


def missing_rows(batch: Mapping[str, Any]) -> jax.Array:
    """Int32 [], 0 if all processes bring batches of the same shape, else the difference in size.

    Each process compiles its own program, for the shape of its own rows. If shapes differ, sums run
    over all rows, but each process would divide means by another number. So this counts the values
    at run time, in a way that the compiler cannot fold, and compares with the compiled shape.
    """
    leaves = [leaf for leaf in jax.tree.leaves(dict(batch)) if jnp.ndim(leaf) and leaf.size]
    if not leaves:
        return jnp.int32(0)
    leaf = max(leaves, key=lambda leaf: math.prod(leaf.shape[:2]))
    leaf = leaf.reshape(*leaf.shape[:2], -1)[..., 0]  # its rows, and its length where it has one
    # Counts 1 for any value; the compiler does not see that.
    above = leaf >= jnp.ones((), leaf.dtype)
    there = jnp.sum(above, dtype=jnp.int32) + jnp.sum(~above, dtype=jnp.int32)
    return jnp.abs(there - leaf.size)


def explain(
    state: TrainState, batch: Mapping[str, Any], loss_fn: LossFn, apply_fn: Callable[..., Any]
) -> str:
    """What became non-finite first: a field of the batch, a parameter, an activation, a gradient.

    Runs forward and backward pass of the step again, and checks the output of every module.

    Args:
        state: the state before the step.
        batch: the batch of the step.
        loss_fn, apply_fn: those of the step.
    """
    if name := _first(_flags(batch)):
        return f"the batch holds NaN or infinity in '{name}'"
    if name := _first(_flags(state.params)):
        return f"parameter {name} is not finite before the step"
    order: list[str] = []

    def objective(trained: Any) -> tuple[jax.Array, Any]:
        seen: list[Any] = []
        given = state.replace(trained=trained)  # pyright: ignore[reportAttributeAccessIssue]
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        watched = _watched(apply_fn, seen, order)
        loss, _, _ = loss_fn(given.params, NamedBatch(batch), state.model_state, rng, watched)
        return loss.astype(jnp.float32), jax.tree.map(_bad, seen)

    (loss, seen), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(state.trained)
    rank = {path: place for place, path in reversed(list(enumerate(order)))}
    outputs = {}
    for call in seen:
        for path, bad in leaves_by_path(call).items():
            if CALL in path.split("/"):
                outputs.setdefault(path.split(f"{CALL}")[0].rstrip("/"), []).append(bool(bad))
    ranked = sorted(outputs, key=lambda path: rank.get(path, len(rank)))
    name = next((path for path in ranked if any(outputs[path])), None)
    if name is not None:
        return f"activation {name or '(output of the model)'} is not finite"
    if not jnp.isfinite(loss):
        return "the loss is not finite, every activation is"
    if name := _first(_flags(gradients)):
        return f"the gradient of parameter {name} is not finite, the loss is"
    if not jnp.isfinite(global_norm(gradients)):
        sizes = leaves_by_path(jax.tree.map(lambda leaf: float(jnp.max(jnp.abs(leaf))), gradients))
        path = max(sizes, key=lambda name: sizes[name])
        return (
            f"every gradient is finite, but the sum of their squares is beyond float32: that of"
            f" parameter {path} reaches {sizes[path]:.3g}"
        )
    return "it cannot be reproduced from the state before the step"


def _watched(apply_fn: Callable[..., Any], seen: list[Any], order: list[str]) -> Callable[..., Any]:
    """Wrap `apply_fn` to append the modules' outputs to `seen`, and their paths to `order`."""

    def note(
        call: Callable[..., Any], args: Any, named: Any, context: nn.module.InterceptorContext
    ) -> Any:
        found = call(*args, **named)
        if context.method_name == CALL:
            order.append("/".join(context.module.path))
        return found

    def apply(variables: Any, *args: Any, mutable: Any = False, **named: Any) -> Any:
        asked = [mutable] if isinstance(mutable, str) else mutable
        if asked is False or isinstance(asked, list | tuple | set | frozenset):
            asked = [*(asked or ()), INTERMEDIATES]
        with nn.intercept_methods(note):
            output, collections = apply_fn(
                variables, *args, mutable=asked, capture_intermediates=True, **named
            )
        collections = dict(collections)
        seen.append(collections.pop(INTERMEDIATES, {}))
        return output if mutable is False else (output, collections)

    return apply


def _flags(tree: Any) -> dict[str, bool]:
    """Path -> whether the leaf has a value that is not finite."""
    return {path: bool(_bad(leaf)) for path, leaf in leaves_by_path(tree).items()}


def _bad(value: Any) -> jax.Array:
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return jnp.zeros((), bool)
    return ~jnp.all(jnp.isfinite(value))


def _first(flags: Mapping[str, bool]) -> str | None:
    return next((path for path, bad in flags.items() if bad), None)
