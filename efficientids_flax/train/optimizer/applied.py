"""The learning rate of an update, by the optimizer's own count instead of the step.

The two differ if steps were skipped, if a run began at a later step, and if an optimizer collects
gradients over several steps. If a resumed run changes its optimizer, the count continues.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.train.optimizer.adafactor import ShardedAdafactorState
from efficientids_flax.tree import leaves_by_path

RATE = "learning_rate"
RATED = (optax.ScaleByScheduleState, ShardedAdafactorState)  # their count determines the rate


def applied_rate(
    learning_rate: Callable[[Any], Any] | float | None, before: Any, after: Any, step: jax.Array
) -> jax.Array | None:
    """The learning rate of an update, float32 []; None if unknown.

    Args:
        learning_rate: a number, or a function of the number of updates; None: unknown, unless
            `optax.inject_hyperparams` holds it.
        before, after: state of the optimizer before and after the update. A rate held by
            `inject_hyperparams` has precedence. Otherwise the count is that of a
            `ScaleByScheduleState`, or else the first one found, however deeply wrapped.
        step: number of steps before the update, used if the optimizer has no count.
    """
    for state in _states(after):
        hyperparams = getattr(state, "hyperparams", None)
        if isinstance(hyperparams, dict) and RATE in hyperparams:
            return jnp.asarray(hyperparams[RATE], jnp.float32)
    if learning_rate is None:
        return None
    if not callable(learning_rate):
        return jnp.asarray(learning_rate, jnp.float32)
    count = updates_taken(before)
    return _called(learning_rate, step if count is None else count)


def updates_taken(state: Any) -> jax.Array | None:
    """The count in an optimizer's state that determines the learning rate; None: it has none."""
    counts = [part for part in _states(state) if _counts(part)]
    counts.sort(key=lambda part: not isinstance(part, optax.ScaleByScheduleState))
    return counts[0].count if counts else None


def next_rate(
    learning_rate: Callable[[Any], Any] | float | None,
    optimizer: optax.GradientTransformation,
    params: Any,
    state: Any,
    step: jax.Array,
) -> jax.Array | None:
    """The learning rate that the next update will use, float32 []; None if unknown.

    Args:
        learning_rate, step: see `applied_rate`.
        optimizer: the optimizer.
        params, state: trained parameters and the optimizer's state before the update.

    Raises:
        ValueError: the schedule does not return one number.
    """
    after = state
    if any(RATE in getattr(part, "hyperparams", ()) for part in _states(state)):
        # The rate is a part of the state after an update; jit drops the rest of it.
        none, zeros = jnp.float32(0), jax.tree.map(jnp.zeros_like, params)
        update = optax.with_extra_args_support(optimizer).update
        _, after = update(zeros, state, params, loss=none, value=none)
    return applied_rate(learning_rate, state, after, step)


def _called(learning_rate: Callable[[Any], Any], count: Any) -> jax.Array:
    try:
        value = learning_rate(count)
    except jax.errors.ConcretizationTypeError as error:
        raise ValueError(
            "learning_rate: the schedule asks for the value of its count (by `if`, `float` or the"
            " like), which is not known when the step is compiled; use jnp.where instead"
        ) from error
    try:
        found = jnp.asarray(value, jnp.float32)
    except (TypeError, ValueError):
        found = None
    if found is None or found.ndim:
        raise ValueError(f"learning_rate: expected one number of the schedule, found {value!r}")
    return found


def injected(state: Any) -> Iterator[tuple[str, Any]]:
    """(Place and name, value) of each number of `optax.inject_hyperparams` without a schedule."""
    found = (
        part for part in _states(state) if isinstance(getattr(part, "hyperparams", None), dict)
    )
    for place, part in enumerate(found):
        scheduled = getattr(part, "hyperparams_states", {})
        for name, value in part.hyperparams.items():
            if name not in scheduled:
                yield f"{place}.{name}", value


def with_injected(state: Any, numbers: Any) -> Any:
    """A state of `optax.inject_hyperparams` with the numbers of another state of its form."""

    def chosen(keys: Any, old: Any, new: Any) -> Any:
        return new if any(getattr(key, "name", None) == "hyperparams" for key in keys) else old

    return jax.tree_util.tree_map_with_path(chosen, state, numbers)


def renewed(
    optimizer: optax.GradientTransformation,
    params: Any,
    state: Any,
    missing: Collection[str],
    taken: jax.Array | int,
) -> Any:
    """The state of an optimizer that replaces another one at some step, reusing common parts.

    Args:
        optimizer: the new optimizer.
        params: trained parameters at that step.
        state: state of the new optimizer, with its shapes and shardings, and the old values where
            there are any.
        missing: paths of leaves that the old optimizer did not have.
        taken: number of updates so far, by the old optimizer's count if it had one.

    Returns:
        The state with missing leaves from `optimizer.init(params)`, so that an average of the
        parameters starts at these. Counts that determine a learning rate do not restart: they
        continue from the old optimizer's count.
    """
    leaves, form = jax.tree.flatten(state)
    paths = list(leaves_by_path(state))
    places = [leaf.sharding for leaf in leaves]
    fresh = jax.jit(optimizer.init, out_shardings=form.unflatten(places))(params)
    numbered = form.unflatten(range(len(leaves)))
    rated = [at for state in _states(numbered) for at in _rated_counts(state)]
    count = next((leaves[at] for at in rated if paths[at] not in missing), taken)
    made = [
        leaf if path not in missing else new
        for path, leaf, new in zip(paths, leaves, jax.tree.leaves(fresh), strict=True)
    ]
    for at in rated:
        if paths[at] in missing:
            # A copy, since donating the same array twice fails.
            made[at] = jax.device_put(jnp.array(count, made[at].dtype, copy=True), places[at])
    return form.unflatten(made)


def _states(tree: Any) -> Iterator[Any]:
    """The named tuples in a tree of states, outer ones first."""
    if hasattr(tree, "_fields"):
        yield tree
    inner = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree and hasattr(x, "_fields"))
    for part in inner:
        if part is not tree and hasattr(part, "_fields"):
            yield from _states(part)


def _rated_counts(state: Any) -> Iterator[Any]:
    """The counts in one state that determine a learning rate."""
    injected = hasattr(state, "hyperparams")
    if injected or isinstance(state, RATED):
        yield state.count
    for inner in getattr(state, "hyperparams_states", {}).values() if injected else ():
        if hasattr(inner, "count"):
            yield inner.count


def _counts(state: Any) -> bool:
    count = getattr(state, "count", None)
    return isinstance(count, jax.Array) and count.ndim == 0
