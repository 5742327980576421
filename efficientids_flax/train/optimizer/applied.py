"""The learning rate that an update was made with: by the optimizer's own count, not by the step.

The two differ where steps were left out, where a run began at a later step, and where an optimizer
collects gradients over several steps.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

RATE = "learning_rate"


def applied_rate(
    learning_rate: Callable[[Any], Any] | float | None, before: Any, after: Any, step: jax.Array
) -> jax.Array | None:
    """The rate of an update, float32 []; None: it is not known.

    Args:
        learning_rate: a number, or a function of the number of updates; None: not known, but to
            `optax.inject_hyperparams`.
        before, after: state of the optimizer around the update. The count is that of
            `ScaleByScheduleState`, or the first one there is, inside of whatever wraps it; what
            `inject_hyperparams` holds goes before all.
        step: number of steps before the update, which counts where the optimizer has no count.
    """
    for state in _states(after):
        hyperparams = getattr(state, "hyperparams", None)
        if isinstance(hyperparams, dict) and RATE in hyperparams:
            return jnp.asarray(hyperparams[RATE], jnp.float32)
    if learning_rate is None:
        return None
    if not callable(learning_rate):
        return jnp.asarray(learning_rate, jnp.float32)
    counts = [state for state in _states(before) if _counts(state)]
    counts.sort(key=lambda state: not isinstance(state, optax.ScaleByScheduleState))
    return jnp.asarray(learning_rate(counts[0].count if counts else step), jnp.float32)


def _states(tree: Any) -> Iterator[Any]:
    """The named tuples of a tree of states, from the outside in."""
    if hasattr(tree, "_fields"):
        yield tree
    inner = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree and hasattr(x, "_fields"))
    for part in inner:
        if part is not tree and hasattr(part, "_fields"):
            yield from _states(part)


def _counts(state: Any) -> bool:
    count = getattr(state, "count", None)
    return isinstance(count, jax.Array) and count.ndim == 0
