"""The first state of a run, each leaf created with its sharding."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from efficientids_flax.config.record import listed, unknown_key
from efficientids_flax.train.state import Frozen, TrainState, run_key, state_shardings
from efficientids_flax.train.step.objectives import Objective
from efficientids_flax.tree import flatten, unflatten


def initial_state(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    rng: jax.Array,
    sample_batch: Mapping[str, Any],
    *,
    frozen: Frozen = None,
    frozen_dtype: str | None = None,
    master_weights: bool = True,
    mesh: Mesh | None = None,
    params: Mapping[str, Any] | None = None,
    opt_state: Any = None,
    step: int = 0,
) -> TrainState:
    """The first state, made by one jitted function: on a mesh no device holds more than its shard.

    Args:
        objective: initialises the variables.
        optimizer: initialises the optimizer state.
        rng: key for the initial parameters, and for dropout.
        sample_batch: see `Trainer.create_train_state`.
        frozen, frozen_dtype: parameters that are not trained, and the dtype to keep them in.
        master_weights: see `TrainState.create`.
        mesh: mesh to shard the state over.
        params: given parameters, all or some; they take precedence over the objective's.
        opt_state, step: those of a run to continue.

    Raises:
        ValueError: parameters do not fit the model.
    """
    first, run = jax.random.split(run_key(rng))
    given = flatten(dict(objective.params or {})) | flatten(dict(params or {}))

    @partial(jax.jit, inline=True)  # traced once for its shapes and for the program
    def whole(key: jax.Array, batch: Any, given: Any, opt_state: Any) -> TrainState:
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
            master_weights=master_weights,
        )
        if frozen_dtype is None:
            return state
        kept = jax.tree.map(lambda x: x.astype(frozen_dtype), state.frozen)
        return state.replace(frozen=kept)  # pyright: ignore[reportAttributeAccessIssue]

    # Given frozen parameters do not go through jit, which would copy a whole language model. (With
    # several processes they do: only jit makes one global array of each process's copy.)
    there = set(given) if jax.process_count() == 1 else set()

    def made(*arguments: Any) -> TrainState:
        return _without(whole(*arguments), there)

    arguments = (first, dict(sample_batch), given, opt_state)
    shapes = jax.eval_shape(whole, *arguments)
    places = None if mesh is None else state_shardings(shapes, mesh, objective.config)
    state = jax.jit(made, out_shardings=None if places is None else _without(places, there))(
        *arguments
    )
    kept = flatten(state.frozen)
    for path, shape in flatten(shapes.frozen).items():
        if path in there:
            leaf = given[path]
            if not isinstance(leaf, jax.Array):
                leaf = np.array(leaf, shape.dtype)  # a copy, since the caller may change theirs
            place = None if places is None else flatten(places.frozen)[path]
            kept[path] = jax.device_put(leaf.astype(shape.dtype, copy=False), place)
    return state.replace(frozen=unflatten(kept))  # pyright: ignore[reportAttributeAccessIssue]


def _without(state: TrainState, paths: Collection[str]) -> TrainState:
    """The state (or its tree of shardings) without these frozen parameters."""
    kept = {path: leaf for path, leaf in flatten(state.frozen).items() if path not in paths}
    return state.replace(frozen=unflatten(kept))  # pyright: ignore[reportAttributeAccessIssue]


def _check(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that the given parameters have the model's paths and shapes."""
    problems = [unknown_key(path, wanted) for path in given if path not in wanted]
    problems += [
        f"{path}: found {list(given[path].shape)}, the model has {list(wanted[path].shape)}"
        for path in given.keys() & wanted.keys()
        if tuple(given[path].shape) != tuple(wanted[path].shape)
    ]
    if problems:
        raise ValueError(listed("params", sorted(problems)))
