"""Adam as in Praxis: praxis/optimizers.py 1.4.0, `sharded_adam`.

Praxis corrects the bias through the decay rates (arXiv 1804.04235, 7.1) and stores corrected
moments m and v; a converted checkpoint stores optax' `mu = m (1 - beta1^count)` and `nu`. Here they
are converted back to m and v for the step. Its float32 arithmetic is Praxis' own, including the
rounding of the decay rates, which matters far more than that of the moments.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.train.optimizer.clipping import clip_by_rms, inf_to_nan
from efficientids_flax.train.optimizer.variables import Variable, Variables, column, map_variables


class Factors(NamedTuple):
    """What the moments of all variables are multiplied by in one step; each is float32 [].

    Attributes:
        inverse: of a stored moment, to correct it.
        decay: of a corrected moment.
        weight: of the moment after the step, to store it.
    """

    inverse: jax.Array
    decay: jax.Array
    weight: jax.Array


def scale_by_adam(
    config: OptimizerConfig, variables: Variables
) -> optax.GradientTransformationExtraArgs:
    """Gradients -> directions of Adam, with `weight_decay * parameter` added.

    Args:
        config: `beta1`, `beta2`, `epsilon` must be given. `clip_threshold` clips the RMS of each
            variable's direction; None is Praxis' `sharded_adam=False`, optax' own arithmetic.
        variables: tells which parameters stack layers.

    Returns:
        A transformation with `optax.ScaleByAdamState`; moments keep their dtype.
    """
    threshold = config.clip_threshold
    if threshold is None:
        return _scale_by_optax(config)
    beta1, beta2, epsilon = config.beta1 or 0.0, config.beta2 or 0.0, config.epsilon or 0.0

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = partial(jax.tree.map, jnp.zeros_like)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros(params), zeros(params))

    def update(
        gradients: Any, state: optax.ScaleByAdamState, params: Any = None, **_: Any
    ) -> tuple[Any, optax.ScaleByAdamState]:
        count = jnp.asarray(state.count)
        first, second = factors(beta1, count), factors(beta2, count)

        def moment(value: jax.Array, stored: jax.Array, by: Factors) -> tuple[jax.Array, jax.Array]:
            """(corrected moment after this step, the same as it is stored)."""
            new = (1.0 - by.decay) * value + by.decay * (stored.astype(jnp.float32) * by.inverse)
            return new, (new * by.weight).astype(stored.dtype)

        def step(
            _: Variable, gradient: jax.Array, mu: jax.Array, nu: jax.Array, parameter: jax.Array
        ) -> tuple[jax.Array, ...]:
            gradient = inf_to_nan(gradient.astype(jnp.float32), config.maybe_inf_to_nan)
            m, mu = moment(gradient, mu, first)
            v, nu = moment(gradient**2, nu, second)
            direction = m / (jnp.sqrt(v + config.epsilon_root) + epsilon)
            direction = clip_by_rms(direction, threshold, sticky=config.maybe_inf_to_nan)
            if config.weight_decay > 0:
                direction = direction + config.weight_decay * parameter
            return direction, mu, nu

        found = map_variables(step, variables, gradients, state.mu, state.nu, params)
        return column(found, 0), optax.ScaleByAdamState(
            count + 1, column(found, 1), column(found, 2)
        )

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _scale_by_optax(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    adam = optax.scale_by_adam(
        config.beta1 or 0.0, config.beta2 or 0.0, config.epsilon or 0.0, config.epsilon_root
    )

    def update(updates: Any, state: Any, params: Any = None, **_: Any) -> tuple[Any, Any]:
        found, state = adam.update(updates, state)
        if decay := config.weight_decay:
            found = jax.tree.map(lambda direction, p: direction + decay * p, found, params)
        return found, state

    return optax.GradientTransformationExtraArgs(adam.init, update)


def factors(beta: float, count: jax.Array) -> Factors:
    """The factors of a moment in the step after `count` others."""
    # At count 0 there is no moment yet: avoid 1 / 0.
    inverse = jnp.where(count > 0, 1 / jnp.where(count > 0, weight(beta, count), 1), 0)
    return Factors(inverse, corrected_decay(beta, count), weight(beta, count + 1))


def corrected_decay(beta: float, count: jax.Array) -> jax.Array:
    """`beta (1 - beta^count) / (1 - beta^(count + 1))`, float32 [], in Praxis' arithmetic."""
    step = count.astype(jnp.float32) + 1.0
    return beta * (1.0 - jnp.power(beta, step - 1.0)) / (1.0 - jnp.power(beta, step))


def weight(beta: float, count: jax.Array) -> jax.Array:
    """`1 - beta^count`, float32 [], without cancellation: the sum of a moment's weights."""
    return -jnp.expm1(count * math.log(beta)) if beta else (count > 0).astype(jnp.float32)
