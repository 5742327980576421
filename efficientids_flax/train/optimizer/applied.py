"""The learning rate that an update was made with: by the optimizer's own count, not by the step.

The two differ where steps were left out, where a run began at a later step, and where an optimizer
collects gradients over several steps. Where a run takes another optimizer, the count goes on.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.train.optimizer.adafactor import ShardedAdafactorState
from efficientids_flax.tree import leaves_by_path

RATE = "learning_rate"
RATED = (optax.ScaleByScheduleState, ShardedAdafactorState)  # whose count the rate goes by


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


def renewed(
    optimizer: optax.GradientTransformation,
    params: Any,
    state: Any,
    missing: Collection[str],
    step: jax.Array,
) -> Any:
    """The state of an optimizer that takes over at some step, with parts of one before it.

    Args:
        optimizer: that takes over.
        params: trained parameters at that step.
        state: of the optimizer, in the shapes and places that it is to have.
        missing: paths of its leaves that the one before did not have.
        step: number of steps so far.

    Returns:
        The state with the missing leaves as `optimizer.init(params)` makes them, so that an average
        of the parameters begins with these. Counts that a learning rate goes by do not begin anew:
        they go on from the count of the optimizer before, or from the step.
    """
    leaves, form = jax.tree.flatten(state)
    paths = list(leaves_by_path(state))
    places = [leaf.sharding for leaf in leaves]
    fresh = jax.jit(optimizer.init, out_shardings=form.unflatten(places))(params)
    numbered = form.unflatten(range(len(leaves)))
    rated = [at for state in _states(numbered) for at in _rated_counts(state)]
    count = next((leaves[at] for at in rated if paths[at] not in missing), step)
    made = [
        leaf if path not in missing else new
        for path, leaf, new in zip(paths, leaves, jax.tree.leaves(fresh), strict=True)
    ]
    for at in rated:
        if paths[at] in missing:
            # A copy: a step that is given both counts may not be given one array twice.
            made[at] = jax.device_put(jnp.array(count, made[at].dtype, copy=True), places[at])
    return form.unflatten(made)


def _states(tree: Any) -> Iterator[Any]:
    """The named tuples of a tree of states, from the outside in."""
    if hasattr(tree, "_fields"):
        yield tree
    inner = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree and hasattr(x, "_fields"))
    for part in inner:
        if part is not tree and hasattr(part, "_fields"):
            yield from _states(part)


def _rated_counts(state: Any) -> Iterator[Any]:
    """The counts of one state that a rate goes by."""
    injected = hasattr(state, "hyperparams")
    if injected or isinstance(state, RATED):
        yield state.count
    for inner in getattr(state, "hyperparams_states", {}).values() if injected else ():
        if hasattr(inner, "count"):
            yield inner.count


def _counts(state: Any) -> bool:
    count = getattr(state, "count", None)
    return isinstance(count, jax.Array) and count.ndim == 0
