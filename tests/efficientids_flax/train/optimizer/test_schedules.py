"""Schedules of new runs: closed forms, Praxis' cosine, and what cannot be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.config import ScheduleConfig
from efficientids_flax.train.optimizer.praxis_schedules import schedule
from efficientids_flax.train.optimizer.schedules import (
    CURVES,
    ScheduleError,
    create_learning_rate_schedule,
    create_warmup_cosine_schedule,
)

BASE, WARMUP, TOTAL, RATIO = 0.02, 4, 24, 0.1
# Of the base rate: roundings of float32, in the count over the length and in the cosine.
ROUNDING = 1e-6
OPTIONS: dict[str, dict[str, Any]] = {
    "constant": {"min_learning_rate_ratio": 0.0},
    "linear": {},
    "cosine": {},
    "exponential": {"decay_steps": 5, "decay_rate": 0.5},
    "step": {"decay_steps": 5, "decay_rate": 0.5},
    "inverse_sqrt": {},
}


def after_warmup(kind: str, n: int) -> float:
    """The documented form at n steps after the warm-up, by `BASE`."""
    part = min(n / (TOTAL - WARMUP), 1)
    return {
        "constant": 1.0,
        "linear": 1 - (1 - RATIO) * part,
        "cosine": RATIO + (1 - RATIO) * (1 + np.cos(np.pi * part)) / 2,
        "exponential": max(0.5 ** (n / 5), RATIO),
        "step": max(0.5 ** (n // 5), RATIO),
        "inverse_sqrt": max((WARMUP / (WARMUP + n)) ** 0.5, RATIO),
    }[kind]


def made(kind: str, **given: Any) -> Any:
    options = {"min_learning_rate_ratio": RATIO, **OPTIONS[kind], **given}
    warmup, total = options.pop("warmup_steps", WARMUP), options.pop("total_steps", TOTAL)
    return create_learning_rate_schedule(BASE, warmup, total, kind, **options)


def test_every_kind_is_tested():
    assert set(OPTIONS) == set(CURVES)


@pytest.mark.parametrize("kind", OPTIONS)
def test_has_its_closed_form(kind: str):
    counts = [*range(2 * TOTAL), 10 * TOTAL]
    wanted = [BASE * (n / WARMUP if n < WARMUP else after_warmup(kind, n - WARMUP)) for n in counts]
    rate = jax.jit(made(kind))
    for found in (np.array([rate(count) for count in counts]), made(kind)(jnp.array(counts))):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ROUNDING * BASE)


@pytest.mark.parametrize("kind", sorted(set(OPTIONS) - {"inverse_sqrt"}))
def test_begins_at_the_base_rate_without_a_warm_up(kind: str):
    assert float(made(kind, warmup_steps=0)(0)) == np.float32(BASE)


@settings(max_examples=10, deadline=None)
@given(
    warmup=st.integers(0, 500),
    length=st.integers(1, 2000),
    ratio=st.floats(0, 1),
    base=st.floats(1e-6, 10),
)
def test_cosine_is_that_of_praxis(warmup: int, length: int, ratio: float, base: float):
    total = warmup + length
    ours = create_learning_rate_schedule(base, warmup, total, "cosine", ratio)
    praxis = schedule(
        ScheduleConfig(
            "linear_rampup_cosine_decay",
            {"warmup_steps": warmup, "decay_start": warmup, "decay_end": total,
             "min_ratio": ratio, "max": base},
        )
    )  # fmt: skip
    counts = np.linspace(0, total + 3, 40).astype(np.int32)
    np.testing.assert_allclose(ours(counts), praxis(counts), rtol=0, atol=2 * ROUNDING * base)


def test_warmup_cosine_ends_at_zero():
    value = create_warmup_cosine_schedule(1e-3, 100, 1000)
    found = [float(value(count)) for count in (0, 50, 100, 550, 1000)]
    np.testing.assert_allclose(found, [0, 5e-4, 1e-3, 5e-4, 0], atol=1e-9)


def test_steps_at_boundaries_of_the_run():
    value = made("step", decay_steps=None, boundaries=[10, 20], min_learning_rate_ratio=0.0)
    found = [float(value(count)) / BASE for count in (4, 9, 10, 19, 20, 100)]
    np.testing.assert_allclose(found, [1, 1, 0.5, 0.5, 0.25, 0.25], rtol=1e-6)
    assert float(made("step", decay_rate=None)(WARMUP + 5)) == pytest.approx(0.1 * BASE)


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("warmup", [TOTAL, TOTAL + 1])
def test_a_warm_up_that_does_not_end_is_refused(kind: str, warmup: int):
    with pytest.raises(
        ScheduleError, match=rf"warmup_steps: .* below total_steps \(24\), .*{warmup}"
    ):
        made(kind, warmup_steps=warmup)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("cosine", {"total_steps": None}, "'cosine': total_steps: needed, found None"),
        ("cosine", {"decay_steps": 3}, "decay_steps: not one of its options, found 3"),
        ("constant", {"min_learning_rate_ratio": 0.1}, "min_learning_rate_ratio: not one of its"),
        ("exponential", {"decay_rate": None, "decay_steps": None}, "decay_steps: .*decay_rate: "),
        ("exponential", {"decay_rate": 1.5}, r"decay_rate: expected in \(0, 1\], found 1.5"),
        ("linear", {"min_learning_rate_ratio": -0.1}, r"ratio: expected in \[0, 1\], found -0.1"),
        ("linear", {"warmup_steps": 1.5}, "warmup_steps: expected an integer .* 0, found 1.5"),
        ("linear", {"total_steps": 0}, "total_steps: expected an integer of at least 1, found 0"),
        ("step", {"decay_steps": None}, "either decay_steps or boundaries, found None and None"),
        ("step", {"boundaries": [9]}, r"either decay_steps or boundaries, found 5 and \(9,\)"),
        ("step", {"decay_steps": None, "boundaries": [9, 6]}, r"in order and after .*\[9, 6\]"),
        ("step", {"decay_steps": None, "boundaries": [4]}, r"after warmup_steps \(4\)"),
        ("inverse_sqrt", {"warmup_steps": 0}, "decay_steps: needed where there are no warm"),
    ],
)  # fmt: skip
def test_what_cannot_be(kind: str, options: dict[str, Any], message: str):
    with pytest.raises(ScheduleError, match=message):
        made(kind, **options)


def test_an_unknown_kind_and_a_rate_of_zero():
    with pytest.raises(ScheduleError, match="'cosin': unknown; known are constant, linear"):
        create_learning_rate_schedule(1.0, 0, 10, "cosin")
    with pytest.raises(ScheduleError, match="base_learning_rate: expected above 0, found 0"):
        create_learning_rate_schedule(0.0, 0, 10)
