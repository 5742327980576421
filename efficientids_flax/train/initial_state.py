"""The state that a run begins with, each leaf made where it belongs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from efficientids_flax.config.record import listed, unknown_key
from efficientids_flax.train.objective import Objective
from efficientids_flax.train.placement import state_shardings
from efficientids_flax.train.train_state import Frozen, TrainState, key_data
from efficientids_flax.train.variables import flatten, unflatten


def initial_state(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    rng: jax.Array,
    sample_batch: Mapping[str, Any],
    *,
    frozen: Frozen = None,
    frozen_dtype: str | None = None,
    mesh: Mesh | None = None,
    params: Mapping[str, Any] | None = None,
    opt_state: Any = None,
    step: int = 0,
) -> TrainState:
    """The state, by one jitted function: on a mesh no device holds more than its part.

    Args:
        objective: makes the first variables.
        optimizer: makes the first optimizer state.
        rng: of the first parameters, and of dropout.
        sample_batch: see `Trainer.create_train_state`.
        frozen, frozen_dtype: parameters that are not trained, and the dtype they are kept in.
        mesh: that the state is spread over.
        params: parameters that are there already, all or some.
        opt_state, step: of a run that goes on.

    Raises:
        ValueError: parameters that are not the model's.
    """
    first, run = jax.random.split(jax.random.wrap_key_data(key_data(rng)))
    given = flatten(dict(params or {}))

    def make(key: jax.Array, batch: Any, given: Any, opt_state: Any) -> TrainState:
        variables = dict(objective.init(key, batch))
        leaves = flatten(variables.pop("params"))
        _check(given, leaves)
        leaves |= {path: jnp.asarray(leaf) for path, leaf in given.items()}
        state = TrainState.create(
            unflatten(leaves),
            optimizer,
            rng=run,
            frozen=frozen,
            model_state=variables,
            step=step,
            opt_state=opt_state,
        )
        if frozen_dtype is None:
            return state
        kept = jax.tree.map(lambda x: x.astype(frozen_dtype), state.frozen)
        return state.replace(frozen=kept)  # pyright: ignore[reportAttributeAccessIssue]

    batch = dict(sample_batch)
    shardings = None
    if mesh is not None:
        shapes = jax.eval_shape(make, first, batch, given, opt_state)
        shardings = state_shardings(shapes, mesh, objective.config)
    return jax.jit(make, out_shardings=shardings)(first, batch, given, opt_state)


def _check(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """The given parameters are the model's, in path and shape."""
    problems = [unknown_key(path, wanted) for path in given if path not in wanted]
    problems += [
        f"{path}: found {list(given[path].shape)}, the model has {list(wanted[path].shape)}"
        for path in given.keys() & wanted.keys()
        if tuple(given[path].shape) != tuple(wanted[path].shape)
    ]
    if problems:
        raise ValueError(listed("params", sorted(problems)))
