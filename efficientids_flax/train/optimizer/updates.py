"""The last steps of every optimizer: learning rate, weight decay, average of the parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.train.optimizer.praxis_schedules import Schedule
from efficientids_flax.tree import path_of

Decays = Callable[[str, jax.Array], bool]  # of a parameter's path and value


def scheduled(
    rate: Schedule, scaled: bool, weight_decay: float, decays: Decays
) -> optax.GradientTransformationExtraArgs:
    """Directions times -rate, minus the decoupled weight decay `rate * weight_decay * parameter`.

    Args:
        rate: learning rate as a function of the number of steps taken.
        scaled: whether the directions already include -rate, as Adafactor's do.
        weight_decay: 0: no weight decay.
        decays: whether weight decay acts on a parameter.

    Returns:
        A transformation with `optax.ScaleByScheduleState`. Its `update` raises `ValueError` if
        there is weight decay and it gets no parameters.
    """

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(
        updates: Any, state: optax.ScaleByScheduleState, params: Any = None, **_: Any
    ) -> tuple[Any, optax.ScaleByScheduleState]:
        count = jnp.asarray(state.count)
        now = rate(count)
        if not scaled:
            updates = jax.tree.map(lambda u: -now * u, updates)
        if weight_decay:
            if params is None:
                raise ValueError("weight_decay: update needs the parameters, found None")

            def decayed(keys: Any, change: jax.Array, value: jax.Array) -> jax.Array:
                if not decays(path_of(keys), value):
                    return change
                return change - now * weight_decay * value

            updates = jax.tree_util.tree_map_with_path(decayed, updates, params)
        return updates, optax.ScaleByScheduleState(count + 1)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def average_params(decay: float) -> optax.GradientTransformationExtraArgs:
    """Moving average of the parameters, Praxis' `apply_ema_weights`; updates pass unchanged.

    `average += (1 - d) (parameter - average)` with the parameters before the update and
    `d = min(decay, (1 + count) / (10 + count))`. (`optax.ema` averages the updates.)

    Args:
        decay: decay of the average, in (0, 1).

    Returns:
        A transformation with `optax.EmaState`.
    """

    def init(params: Any) -> optax.EmaState:
        return optax.EmaState(jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params))

    def update(
        updates: Any, state: optax.EmaState, params: Any = None, **_: Any
    ) -> tuple[Any, optax.EmaState]:
        count = jnp.asarray(state.count)
        d = jnp.minimum(decay, (1.0 + count) / (10.0 + count))

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            return (old - (1.0 - d) * (old - new)).astype(old.dtype)

        return updates, optax.EmaState(count + 1, jax.tree.map(average, state.ema, params))

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
