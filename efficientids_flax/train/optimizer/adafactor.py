"""ShardedAdafactor: praxis/optimizers.py 1.4.0, `_ShardedAdafactorHelper`; arXiv 1804.04235.

Unlike in other implementations of Adafactor, the momentum includes the learning rate, and is stored
in int8 by default, with one scale for each column (all axes but the first). The update itself uses
the momentum before rounding.

Letters: R rows, C columns: the two axes whose second moments are factored.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.stored import ShardedAdafactorState
from efficientids_flax.train.optimizer.clipping import clip_by_rms, inf_to_nan, mean, rms
from efficientids_flax.train.optimizer.praxis_schedules import Schedule
from efficientids_flax.train.optimizer.variables import Variable, Variables, column, map_variables

# Largest stored magnitude: -128 and -32768 are not used.
BUCKETS = {"int8": 127.0, "int16": 32767.0}
# Praxis adds this fraction of the mean squared gradient to the decay and to the rate, to force an
# order of computation. If the rate is 0, layerwise adaptation divides by this alone.
ORDERING = 1e-30


class Slots(NamedTuple):
    """State of one variable; unused slots have shape [1]. See `ShardedAdafactorState`."""

    m: jax.Array
    m_scale: jax.Array
    vr: jax.Array
    vc: jax.Array
    v: jax.Array


def sharded_adafactor(
    config: OptimizerConfig, rate: Schedule, variables: Variables
) -> optax.GradientTransformationExtraArgs:
    """Gradients -> updates, including the learning rate and `weight_decay`.

    Args:
        config: the options of ShardedAdafactor.
        rate: learning rate as a function of the count.
        variables: gives names for the patterns, and tells which parameters stack layers.

    Returns:
        A transformation with `ShardedAdafactorState`.

    Raises:
        ValueError: the decay of the second moment is not given; weight decay is combined with
            `respect_skip_lp_regularization`, which Praxis does not support either.
    """
    _check(config)

    def init(params: Any) -> ShardedAdafactorState:
        found = map_variables(lambda _, value: _empty(value, config), variables, params)
        return ShardedAdafactorState(jnp.zeros([], jnp.int32), *_columns(found, 0))

    def update(
        gradients: Any, state: ShardedAdafactorState, params: Any = None, **_: Any
    ) -> tuple[Any, ShardedAdafactorState]:
        count = jnp.asarray(state.count)
        learning_rate, decay = rate(count), decay_rate(config, count)

        def step(
            variable: Variable, gradient: jax.Array, parameter: jax.Array, *slots: jax.Array
        ) -> tuple[jax.Array, ...]:
            old = Slots(*slots)
            change, new = _step(config, variable, gradient, parameter, old, learning_rate, decay)
            return change, *(n.astype(o.dtype) for n, o in zip(new, old, strict=True))

        found = map_variables(step, variables, gradients, params, *state[1:])
        return column(found, 0), ShardedAdafactorState(count + 1, *_columns(found, 1))

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def decay_rate(config: OptimizerConfig, count: jax.Array) -> jax.Array:
    """Decay of the second moment at this step, float32 [], bias-corrected with 'adam'."""
    step = count + 1.0
    if config.decay_method == "adam":
        beta = jnp.float32(config.decay_adam or 0.0)
        return beta * (1.0 - jnp.power(beta, step - 1.0)) / (1.0 - jnp.power(beta, step))
    return 1.0 - jnp.power(step, -jnp.float32(config.decay_pow or 0.0))


def factored_axes(shape: tuple[int, ...], config: OptimizerConfig) -> tuple[int, int] | None:
    """Axes (C, R) whose second moments are factored; None if the moment is not factored.

    The last two axes, whatever their size. With `sort_factored_second_moment_dims` the two largest,
    if the smaller of them has at least size `min_dim_size_to_factor`.
    """
    if not config.factored or len(shape) < 2:
        return None
    if not config.sort_factored_second_moment_dims:
        return len(shape) - 1, len(shape) - 2
    largest, second = sorted(range(len(shape)), key=lambda axis: -shape[axis])[:2]
    return (largest, second) if shape[second] >= config.min_dim_size_to_factor else None


def quantize(values: jax.Array, dtype: str) -> tuple[jax.Array, jax.Array]:
    """Quantise to integers, with a scale for each column.

    Args:
        values: float32 [R, ...].
        dtype: 'int8' or 'int16'.

    Returns:
        (integers [R, ...], scale [...]); `integers * scale` approximates the values.
    """
    scale = jnp.max(jnp.abs(values), axis=0) / BUCKETS[dtype]
    return jnp.round(values / jnp.where(scale > 0, scale, 1)).astype(dtype), scale


def _check(config: OptimizerConfig) -> None:
    needed = {"adam": config.decay_adam, "pow": config.decay_pow}
    if config.decay_method not in needed or not needed[config.decay_method]:
        raise ValueError(
            "sharded_adafactor: needs decay_method 'adam' with decay_adam, or 'pow' with decay_pow,"
            f" above 0; found {config.decay_method!r}, {config.decay_adam}, {config.decay_pow}"
        )
    if config.respect_skip_lp_regularization and config.weight_decay:
        raise ValueError(
            "respect_skip_lp_regularization: Praxis does not support it with weight_decay"
        )


def _empty(parameter: jax.Array, config: OptimizerConfig) -> Slots:
    """The state before the first step."""
    shape, unused = parameter.shape, jnp.zeros(1)
    m, m_scale, vr, vc, v = (unused,) * 5
    if config.beta1:
        quantized = _quantized(shape, config)
        whole = config.quantized_dtype in BUCKETS and not quantized
        m = jnp.zeros(shape, "float32" if whole else config.quantized_dtype)
        m_scale = jnp.zeros(shape[1:]) if quantized else unused
    if axes := factored_axes(shape, config):
        vr, vc = (jnp.zeros(shape[:axis] + shape[axis + 1 :]) for axis in axes)
    else:
        v = jnp.zeros(shape)
    return Slots(m, m_scale, vr, vc, v)


def _step(
    config: OptimizerConfig,
    variable: Variable,
    gradient: jax.Array,
    parameter: jax.Array,
    slots: Slots,
    learning_rate: jax.Array,
    decay: jax.Array,
) -> tuple[jax.Array, Slots]:
    """(update, new state) of one variable."""
    sticky = config.maybe_inf_to_nan
    gradient = inf_to_nan(gradient.astype(jnp.float32), sticky)
    square = jnp.square(gradient) + config.epsilon1
    ordering = inf_to_nan(mean(square), sticky) * ORDERING
    scale = learning_rate
    if config.multiply_by_parameter_scale:
        scale = scale * jnp.maximum(rms(parameter), config.epsilon2).astype(scale.dtype)
    scale = scale + ordering
    direction, moments = _precondition(config, gradient, square, slots, decay + ordering)
    if config.clip_threshold is not None:
        direction = clip_by_rms(direction, config.clip_threshold, sticky=sticky)
    change, m, m_scale = _momentum(config, scale * direction, slots)
    if (decayed := _weight_decay(config, variable.name)) is not None:
        change = change + decayed * learning_rate * parameter
    if config.layerwise_adaptation and not any(
        re.match(pattern, variable.name) for pattern in config.exclude_from_layerwise_adaptation
    ):
        norm, wanted = rms(change / scale) + config.epsilon1, rms(parameter)
        usable = (wanted > 0) & (norm > 0)
        change = change * jnp.where(usable, wanted / norm, 1.0)
    return -change, Slots(m, m_scale, *moments)


def _precondition(
    config: OptimizerConfig, gradient: jax.Array, square: jax.Array, slots: Slots, decay: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """(gradient / square root of its second moment, (vr, vc, v))."""
    unused = jnp.zeros(1)
    axes = factored_axes(gradient.shape, config)
    if axes is None:
        v = decay * slots.v + (1.0 - decay) * square
        return gradient / jnp.sqrt(v), (unused, unused, v)
    means = [inf_to_nan(jnp.mean(square, axis=axis), config.maybe_inf_to_nan) for axis in axes]
    vr, vc = (
        decay * old + (1.0 - decay) * new
        for old, new in zip((slots.vr, slots.vc), means, strict=True)
    )
    rows = 1.0 / jnp.sqrt(vr / jnp.mean(vr, axis=-1, keepdims=True))
    columns = 1.0 / jnp.sqrt(vc)
    direction = gradient * jnp.expand_dims(rows, axes[0]) * jnp.expand_dims(columns, axes[1])
    return direction, (vr, vc, unused)


def _momentum(
    config: OptimizerConfig, change: jax.Array, slots: Slots
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(moving average of the change, m, m_scale)."""
    unused = jnp.zeros(1)
    if not config.beta1:
        return change, unused, unused
    quantized = _quantized(change.shape, config)
    old = slots.m.astype(jnp.float32)
    old = old * slots.m_scale[jnp.newaxis] if quantized else old
    change = config.beta1 * old + (1.0 - config.beta1) * change
    change = inf_to_nan(change, config.maybe_inf_to_nan)
    if quantized:
        return change, *quantize(change, config.quantized_dtype)
    return change, change, unused


def _weight_decay(config: OptimizerConfig, name: str) -> float | None:
    """The weight decay of the last pattern that matches a prefix of the name."""
    if not config.weight_decay_by_pattern:
        return config.weight_decay or None
    found = [decay for pattern, decay in config.weight_decay_by_pattern if re.match(pattern, name)]
    return found[-1] if found else None


def _quantized(shape: tuple[int, ...], config: OptimizerConfig) -> bool:
    return config.quantized_dtype in BUCKETS and len(shape) > 0


def _columns(found: dict[str, tuple[jax.Array, ...]], first: int) -> list[dict[str, Any]]:
    return [column(found, first + index) for index in range(len(Slots._fields))]
