"""Schedules against the values of the real Praxis."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.config import ScheduleConfig
from efficientids_flax.config.optimizer import SCHEDULES
from efficientids_flax.train.optimizer.praxis_schedules import schedule
from tests.efficientids_flax.train.optimizer.recorded import FOLDER

RECORDED = json.loads((FOLDER / "schedules.json").read_text())
COUNTS = RECORDED["counts"]
RAMP = {"warmup_steps": 4, "decay_start": 7, "decay_end": 23, "max": 3.0}
# Some roundings of float32: the recorder did not jit, and a jitted schedule fuses its products.
ROUNDING = 1e-6


@pytest.mark.parametrize("case", RECORDED["schedules"], ids=lambda case: case["kind"])
def test_has_the_values_of_praxis(case: dict[str, Any]):
    value = jax.jit(schedule(ScheduleConfig(case["kind"], case["parameters"])))
    found = np.array([value(count) for count in COUNTS])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, case["values"], rtol=ROUNDING, atol=0)


def test_every_kind_is_recorded():
    assert {case["kind"] for case in RECORDED["schedules"]} == set(SCHEDULES)


@pytest.mark.parametrize("count", [5, np.uint32(5), jnp.int32(5)])
def test_counts_of_any_integer_type(count: Any):
    value = schedule(ScheduleConfig("linear", {"start": [0, 1.0], "limit": [10, 0.0]}))(count)
    assert (value.dtype, value.shape, float(value)) == (jnp.float32, (), 0.5)


def test_the_first_update_of_a_warm_up_does_nothing_and_the_highest_rate_comes_twice():
    value = schedule(ScheduleConfig("linear_rampup_cosine_decay", {**RAMP, "decay_start": 5}))
    assert [float(value(count)) for count in (0, 4, 5)] == [0.0, 3.0, 3.0]
    assert float(value(23)) == pytest.approx(3.0 * 0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("linear_rampup_cosine_decay", {**RAMP, "max": 0.0}, "max: expected above 0, found 0.0"),
        ("linear_rampup_cosine_decay", {**RAMP, "decay_start": 3}, "found 4, 3, 23"),
        ("linear_rampup_exponential_decay", {**RAMP, "decay_end": 7}, "found 4, 7, 7"),
        ("linear_rampup_exponential_decay", {**RAMP, "min_ratio": 0.0}, "found 3.0 and 0.0"),
        ("linear", {"start": [5, 1.0], "limit": [5, 0.0]}, "found steps 5 and 5"),
        ("polynomial", {"limit": [5, 0.0], "origin": "end"}, "origin: expected 'start' or"),
        ("delayed_cosine", {"start": [0, 0.0], "limit": [5, 0.0]}, "found 0.0 and 0.0"),
        ("cosine", {}, "total_steps: expected above 0, found 0"),
        ("piecewise_constant", {"boundaries": [1], "values": [1.0]}, "found 1 and 1"),
        ("piecewise_constant", {"boundaries": [2, 1], "values": [1.0, 2.0, 3.0]}, "in order"),
        ("linear_rampup_piecewise_constant", {"boundaries": [], "values": []}, "found 0 and 0"),
        ("continuous", {"min": 1.0}, r"min: expected in \(0, 1\), found 1.0"),
    ],
)
def test_parameters_that_praxis_refuses(kind: str, parameters: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=rf"schedule '{kind}': .*{message}"):
        schedule(ScheduleConfig(kind, parameters))
