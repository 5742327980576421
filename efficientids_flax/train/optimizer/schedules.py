"""Learning-rate schedules for new runs: a linear warm-up, then one of six curves.

Built on optax. The schedules of PAXml jobs, with Praxis' arithmetic, are in `praxis_schedules`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from efficientids_flax.train.optimizer.praxis_schedules import Schedule


class ScheduleError(ValueError):
    """The arguments do not make a valid schedule."""


class Asked(NamedTuple):
    """Arguments of a curve; its steps count from the end of the warm-up.

    Attributes:
        base, least: highest rate, and the rate at the end (if the curve has one).
        warmup, total: steps of the warm-up, and of the whole run.
        decay_steps, decay_rate, boundaries: for the kinds that take them.
    """

    base: float
    least: float
    warmup: int
    total: int | None
    decay_steps: int | None
    decay_rate: float | None
    boundaries: tuple[int, ...] | None

    @property
    def length(self) -> int:
        """Steps after the warm-up."""
        return (self.total or 0) - self.warmup


class Curve(NamedTuple):
    """One kind of schedule after its warm-up.

    Attributes:
        build: makes the curve, a function of the number of steps after the warm-up.
        takes: options that it takes beside base, warm-up and total.
        needs: options that must be given, `total_steps` included.
    """

    build: Callable[[Asked], Any]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def create_learning_rate_schedule(
    base_learning_rate: float,
    warmup_steps: int = 0,
    total_steps: int | None = None,
    schedule_type: str = "cosine",
    min_learning_rate_ratio: float = 0.0,
    *,
    decay_steps: int | None = None,
    decay_rate: float | None = None,
    boundaries: Sequence[int] | None = None,
) -> Schedule:
    """A learning rate by the number of steps taken.

    Step n of the warm-up has `base * n / warmup_steps`, so the first step has rate 0.
    n steps after the warm-up, with N = total_steps - warmup_steps, the rate is `base` times

        constant      1
        linear        1 - (1 - ratio) n / N
        cosine        ratio + (1 - ratio) (1 + cos(pi n / N)) / 2, Praxis' `LinearRampupCosineDecay`
        exponential   decay_rate ** (n / decay_steps), at least ratio
        step          decay_rate ** floor(n / decay_steps), or ** boundaries passed; at least ratio
        inverse_sqrt  sqrt(s / (s + n)), at least ratio; s is decay_steps, or else warmup_steps

    Args:
        base_learning_rate: the highest rate.
        warmup_steps: length of the linear rise from 0.
        total_steps: length of the run, where 'linear' and 'cosine' end; then they are constant.
        schedule_type: one of the above.
        min_learning_rate_ratio: `ratio`, in [0, 1].
        decay_steps, decay_rate: see above; the default `decay_rate` of 'step' is 0.1.
        boundaries: for 'step', instead of `decay_steps`: steps, counted from the start of the run.

    Returns:
        A function from a count (an int, or integers of any shape) to float32 of the same shape.

    Raises:
        ScheduleError: listing everything that is wrong, such as a warm-up that does not end before
            `total_steps`.
    """
    asked = Asked(
        base_learning_rate,
        base_learning_rate * min_learning_rate_ratio,
        warmup_steps,
        total_steps,
        decay_steps,
        decay_rate,
        None if boundaries is None else tuple(boundaries),
    )
    if problems := _problems(asked, schedule_type, min_learning_rate_ratio):
        raise ScheduleError(f"learning-rate schedule '{schedule_type}': {'; '.join(problems)}")
    value = CURVES[schedule_type].build(asked)
    if warmup_steps:
        rise = optax.linear_schedule(0.0, base_learning_rate, warmup_steps)
        value = optax.join_schedules([rise, value], [warmup_steps])

    def rate(count: Any) -> Any:
        count = jnp.asarray(count)
        return jnp.broadcast_to(jnp.asarray(value(count), jnp.float32), count.shape)

    rate.total_steps = total_steps  # pyright: ignore[reportFunctionMemberAccess]
    return rate


def create_warmup_cosine_schedule(base_lr: float, warmup_steps: int, total_steps: int) -> Schedule:
    """Warm up to `base_lr`, then decay to 0 by a cosine; see `create_learning_rate_schedule`."""
    return create_learning_rate_schedule(base_lr, warmup_steps, total_steps, "cosine")


def _constant(asked: Asked) -> Any:
    return optax.constant_schedule(asked.base)


def _linear(asked: Asked) -> Any:
    return optax.linear_schedule(asked.base, asked.least, asked.length)


def _cosine(asked: Asked) -> Any:
    return optax.cosine_decay_schedule(asked.base, asked.length, asked.least / asked.base)


def _exponential(asked: Asked, staircase: bool = False) -> Any:
    return optax.exponential_decay(
        asked.base,
        asked.decay_steps or 0,
        _step_rate(asked),
        staircase=staircase,
        end_value=asked.least,
    )


def _step(asked: Asked) -> Any:
    if asked.boundaries is None:
        return _exponential(asked, staircase=True)
    places = {place - asked.warmup: _step_rate(asked) for place in asked.boundaries}
    value = optax.piecewise_constant_schedule(asked.base, places)
    return lambda count: jnp.maximum(value(count), asked.least)


def _inverse_sqrt(asked: Asked) -> Any:
    span = float(asked.decay_steps or asked.warmup)

    def value(count: Any) -> Any:
        passed = jnp.maximum(count.astype(jnp.float32), 0.0)  # negative in the warm-up, then unused
        return jnp.maximum(asked.base * jnp.sqrt(span / (span + passed)), asked.least)

    return value


def _step_rate(asked: Asked) -> float:
    return 0.1 if asked.decay_rate is None else asked.decay_rate


# fmt: off
CURVES: Mapping[str, Curve] = {
    "constant":     Curve(_constant),
    "linear":       Curve(_linear, ("min_learning_rate_ratio",), ("total_steps",)),
    "cosine":       Curve(_cosine, ("min_learning_rate_ratio",), ("total_steps",)),
    "exponential":  Curve(_exponential, ("min_learning_rate_ratio", "decay_steps", "decay_rate"),
                          ("decay_steps", "decay_rate")),
    "step":         Curve(_step, ("min_learning_rate_ratio", "decay_steps", "decay_rate",
                                  "boundaries")),
    "inverse_sqrt": Curve(_inverse_sqrt, ("min_learning_rate_ratio", "decay_steps")),
}
# fmt: on


def _problems(asked: Asked, kind: str, ratio: float) -> list[str]:
    """One sentence for each thing that is wrong."""
    if kind not in CURVES:
        return [f"unknown; known are {', '.join(CURVES)}"]
    curve = CURVES[kind]
    given = {
        "total_steps": asked.total,
        "decay_steps": asked.decay_steps,
        "decay_rate": asked.decay_rate,
        "boundaries": asked.boundaries,
        "min_learning_rate_ratio": ratio or None,
    }
    found = [f"{name}: needed, found None" for name in curve.needs if given[name] is None] + [
        f"{name}: not one of its options, found {value!r}"
        for name, value in given.items()
        if value is not None and name != "total_steps" and name not in curve.takes
    ]
    if not (math.isfinite(asked.base) and asked.base > 0):
        found.append(f"base_learning_rate: expected above 0, found {asked.base}")
    if not 0 <= ratio <= 1:
        found.append(f"min_learning_rate_ratio: expected in [0, 1], found {ratio}")
    if asked.decay_rate is not None and not 0 < asked.decay_rate <= 1:
        found.append(f"decay_rate: expected in (0, 1], found {asked.decay_rate}")
    found += [
        f"{name}: expected an integer of at least {least}, found {value!r}"
        for name, value, least in (
            ("warmup_steps", asked.warmup, 0),
            ("total_steps", asked.total, 1),
            ("decay_steps", asked.decay_steps, 1),
        )
        if value is not None and (not isinstance(value, int) or value < least)
    ]
    if not found and asked.total is not None and asked.warmup >= asked.total:
        found.append(
            f"warmup_steps: expected below total_steps ({asked.total}), found {asked.warmup}"
        )
    return found or _problems_of_kind(asked, kind)


def _problems_of_kind(asked: Asked, kind: str) -> list[str]:
    if kind == "inverse_sqrt" and not (asked.decay_steps or asked.warmup):
        return ["decay_steps: needed where there are no warmup_steps, found None"]
    if kind != "step":
        return []
    if (asked.boundaries is None) == (asked.decay_steps is None):
        return [
            "expected either decay_steps or boundaries, found"
            f" {asked.decay_steps} and {asked.boundaries}"
        ]
    places = [asked.warmup, *(asked.boundaries or ())]
    if any(left >= right for left, right in pairwise(places)):
        return [
            f"boundaries: expected in order and after warmup_steps ({asked.warmup}),"
            f" found {list(places[1:])}"
        ]
    return []
