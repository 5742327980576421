"""Learning-rate schedules: the kinds of `config.optimizer.SCHEDULES`, as praxis/schedules.py 1.4.0.

The arithmetic is Praxis' own, in float32 and in the same order, quirks included: a continued job
gets the rates that PAXml would have used.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.config import ScheduleConfig

Schedule = Callable[[Any], jax.Array]  # count of steps taken -> value
Point = tuple[float, float]  # step, value


def schedule(config: ScheduleConfig) -> Schedule:
    """The schedule of a configuration.

    Args:
        config: kind and parameters.

    Returns:
        A function from the number of steps taken (an int or an integer array []) to float32 [].

    Raises:
        ValueError: Praxis refuses the parameters too.
    """
    try:
        value = _BUILDERS[config.kind](config.parameters)
    except ValueError as error:
        raise ValueError(f"schedule '{config.kind}': {error}") from None
    return lambda count: jnp.asarray(value(jnp.asarray(count)), jnp.float32)


def _constant(given: Mapping[str, Any]) -> Schedule:
    """Praxis `Constant`."""
    return lambda count: jnp.float32(given["value"])


def _polynomial(given: Mapping[str, Any]) -> Schedule:
    """Praxis `Polynomial` and `Linear`: from `start` to `limit`, flat outside."""
    if given["origin"] not in ("start", "limit"):
        raise ValueError(f"origin: expected 'start' or 'limit', found {given['origin']!r}")
    return _curve(given["start"], given["limit"], given["power"], given["origin"])


def _exponential(given: Mapping[str, Any]) -> Schedule:
    """Praxis `Exponential`."""
    return _geometric(given["start"], given["limit"])


def _delayed_cosine(given: Mapping[str, Any]) -> Schedule:
    """Praxis `DelayedCosine`."""
    return _half_wave(given["start"], given["limit"])


def _cosine(given: Mapping[str, Any]) -> Schedule:
    """Praxis `Cosine`."""
    first, last, steps = given["initial_value"], given["final_value"], given["total_steps"]
    if steps <= 0:
        raise ValueError(f"total_steps: expected above 0, found {steps}")

    def value(count: jax.Array) -> jax.Array:
        done = jnp.minimum(1.0, count.astype(jnp.float32) / steps)
        return last + 0.5 * (first - last) * (1 + jnp.cos(math.pi * done))

    return value


def _ramp(decay: Callable[[Point, Point, Mapping[str, Any]], Schedule]) -> Callable[..., Schedule]:
    """Praxis `LinearRampup...Decay`: rise to `max`, flat until `decay_start`, then `decay`.

    The decay counts from `decay_start`. So with `decay_start = warmup_steps + 1`, step
    `warmup_steps` and the next one both have the highest rate.
    """

    def build(given: Mapping[str, Any]) -> Schedule:
        warmup, begin, end = (given[key] for key in ("warmup_steps", "decay_start", "decay_end"))
        top = given["max"]
        if not top > 0:
            raise ValueError(f"max: expected above 0, found {top}")
        if not 0 <= warmup <= begin < end:
            raise ValueError(
                "expected 0 <= warmup_steps <= decay_start < decay_end, found"
                f" {warmup}, {begin}, {end}"
            )
        pieces, boundaries = [], []
        if warmup > 0:
            pieces.append(_curve((0, 0.0), (warmup, top)))
            boundaries.append(warmup)
        if begin > warmup:
            pieces.append(_curve((0, top), (begin - warmup, top)))
            boundaries.append(begin)
        pieces.append(decay((0, top), (end - begin, top * given["min_ratio"]), given))
        return optax.join_schedules(pieces, boundaries)  # type: ignore[return-value]

    return build


def _ramp_sqrt(given: Mapping[str, Any]) -> Schedule:
    """Praxis `LinearRampupSqrtDecay`."""

    def value(count: jax.Array) -> jax.Array:
        step = jnp.maximum(count.astype(jnp.float32), 1)
        warmup = jnp.float32(given["warmup_steps"])
        return given["peak"] * jnp.minimum(step / warmup, jnp.sqrt(warmup / step))

    return value


def _ramp_pieces(given: Mapping[str, Any]) -> Schedule:
    """Praxis `LinearRampupPiecewiseConstant`: rises to the first value at the first boundary."""
    boundaries, values = given["boundaries"], given["values"]
    if not boundaries or len(boundaries) != len(values):
        raise ValueError(
            "expected as many values as boundaries, at least one, found"
            f" {len(values)} and {len(boundaries)}"
        )
    first = boundaries[0]
    rise = _curve((0, 0.0), (first, values[0]))
    steps = _steps([boundary - first for boundary in boundaries[1:]], values)
    return optax.join_schedules([rise, steps], [first])  # type: ignore[return-value]


def _pieces(given: Mapping[str, Any]) -> Schedule:
    """Praxis `PiecewiseConstant`."""
    return _steps(given["boundaries"], given["values"])


def _transformer(given: Mapping[str, Any]) -> Schedule:
    """Praxis `Transformer`: linear rise, then inverse square root, scaled by model width^-0.5."""
    warmup, end = given["warmup_steps"] * given["worker_replicas"], given["decay_end"]

    def value(count: jax.Array) -> jax.Array:
        step = count.astype(jnp.float32)
        step = step if end is None else jnp.minimum(step, jnp.float32(end))
        rise = (step + 1) * jnp.float32(warmup) ** -1.5
        return jnp.float32(given["model_dim"]) ** -0.5 * jnp.minimum(rise, (step + 1) ** -0.5)

    return value


def _sqrt(given: Mapping[str, Any]) -> Schedule:
    """Praxis `SqrtDecay`."""

    def value(count: jax.Array) -> jax.Array:
        step = count.astype(jnp.float32) - jnp.float32(given["offset"])
        start = jnp.float32(given["decay_start"])
        return jax.lax.rsqrt(jnp.maximum(step, start)) * jnp.float32(given["multiplier"])

    return value


def _continuous(given: Mapping[str, Any]) -> Schedule:
    """Praxis `ContinuousSchedule`: halves every `half_life_steps`, down to `min`."""
    start, least = given["start_step"], given["min"]
    if not 0 < least < 1:
        raise ValueError(f"min: expected in (0, 1), found {least}")
    end = start + given["half_life_steps"] * math.log(least) / math.log(0.5)
    decay = _geometric((start, 1.0), (end, least))
    return lambda count: given["initial_value"] * decay(count)


def _curve(start: Point, limit: Point, power: float = 1, origin: str = "start") -> Schedule:
    (x0, y0), (x1, y1) = start, limit
    if x0 >= x1:
        raise ValueError(f"expected the limit after the start, found steps {x0} and {x1}")

    def value(count: jax.Array) -> jax.Array:
        x = count.astype(jnp.float32)
        ratio = (x - x0) / (x1 - x0)
        part = ratio**power if origin == "start" else 1 - (1 - ratio) ** power
        y = y0 + part * (y1 - y0)
        return jnp.where(x < x0, y0, jnp.where(x >= x1, y1, y))

    return value


def _geometric(start: Point, limit: Point) -> Schedule:
    (x0, y0), (x1, y1) = start, limit
    if y0 <= 0 or y1 <= 0:
        raise ValueError(f"expected values above 0 to decay between, found {y0} and {y1}")
    line = _curve((x0, math.log(y0)), (x1, math.log(y1)))
    return lambda count: jnp.exp(line(count))


def _half_wave(start: Point, limit: Point) -> Schedule:
    (x0, y0), (x1, y1) = start, limit
    if y0 <= 0 or y1 < 0:
        raise ValueError(f"expected values of at least 0, the first above, found {y0} and {y1}")
    line = _curve((x0, 0.0), (x1, math.pi))
    return lambda count: y1 + 0.5 * (y0 - y1) * (1 + jnp.cos(line(count)))


def _steps(boundaries: Sequence[float], values: Sequence[float]) -> Schedule:
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"expected one value more than boundaries, found {len(values)} and {len(boundaries)}"
        )
    if sorted(boundaries) != list(boundaries):
        raise ValueError(f"boundaries: expected in order, found {list(boundaries)}")

    def value(count: jax.Array) -> jax.Array:
        step = count.astype(jnp.float32)
        if not boundaries:
            return jnp.float32(values[0])
        # As in Praxis, a value of 0 counts as not found, and the next value is used instead.
        found = jnp.float32(0)
        for boundary, here in zip(boundaries, values, strict=False):
            inside = jnp.maximum(0.0, jnp.sign(jnp.float32(boundary) - step))
            found = jnp.where(found > 0, found, inside * jnp.float32(here))
        after = jnp.maximum(0.0, jnp.sign(1 + step - jnp.float32(boundaries[-1])))
        return jnp.where(found > 0, found, after * jnp.float32(values[-1]))

    return value


_BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], Schedule]] = {
    "constant": _constant,
    "linear": _polynomial,
    "polynomial": _polynomial,
    "exponential": _exponential,
    "cosine": _cosine,
    "delayed_cosine": _delayed_cosine,
    "linear_rampup_polynomial_decay": _ramp(
        lambda start, limit, given: _curve(start, limit, given["power"])
    ),
    "linear_rampup_cosine_decay": _ramp(lambda start, limit, _: _half_wave(start, limit)),
    "linear_rampup_exponential_decay": _ramp(lambda start, limit, _: _geometric(start, limit)),
    "linear_rampup_sqrt_decay": _ramp_sqrt,
    "linear_rampup_piecewise_constant": _ramp_pieces,
    "piecewise_constant": _pieces,
    "transformer": _transformer,
    "sqrt_decay": _sqrt,
    "continuous": _continuous,
}
