"""Adam's moments against their definition in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.train.optimizer.adam import corrected_decay, scale_by_adam, weight
from efficientids_flax.train.optimizer.variables import variables_of

CONFIG = OptimizerConfig("adam", beta1=0.9, beta2=0.999, epsilon=1e-8, clip_threshold=1e6)
# Praxis rounds its decay rate to float32: 1 - beta^count loses the digits that 1 / (1 - beta) has.
DECAY_ROUNDING = 2**-24 / (1 - 0.999)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 0.9999), st.integers(0, 10**6))
def test_the_sum_of_the_weights_keeps_its_digits(beta: float, count: int):
    assert float(weight(beta, jnp.int32(count))) == pytest.approx(1 - beta**count, rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_the_first_decay_is_zero_and_the_last_the_given_one(beta: float):
    assert float(corrected_decay(beta, jnp.int32(0))) == 0.0
    assert float(corrected_decay(beta, jnp.int32(10**6))) == pytest.approx(beta, rel=1e-6)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_moments_are_weighted_sums_of_gradients(seed: int, steps: int):
    gradients = np.random.default_rng(seed).normal(size=(steps, 3)).astype(np.float32)
    params = {"w": jnp.zeros(3)}
    transform = scale_by_adam(CONFIG, variables_of(None))
    state, direction = transform.init(params), {}
    for gradient in gradients:
        direction, state = transform.update({"w": gradient}, state, params)
    wide = gradients.astype(np.float64)
    moments = []
    for beta, values, found in ((0.9, wide, state.mu), (0.999, wide**2, state.nu)):
        weights = (1 - beta) * beta ** np.arange(steps)[::-1]
        wanted = weights @ values
        scale = weights @ np.abs(values)
        assert (np.abs(found["w"] - wanted) <= steps * DECAY_ROUNDING * scale + 1e-12).all()
        moments.append(wanted / weights.sum())
    expected = moments[0] / (np.sqrt(moments[1]) + 1e-8)
    np.testing.assert_allclose(direction["w"], expected, atol=steps * DECAY_ROUNDING)


def test_the_first_direction_is_the_sign():
    transform = scale_by_adam(CONFIG, variables_of(None))
    params = {"w": jnp.array([1.0, 2.0, 3.0])}
    gradients = {"w": jnp.array([3.0, -0.2, 1e4])}
    direction, _ = transform.update(gradients, transform.init(params), params)
    np.testing.assert_allclose(direction["w"], [1, -1, 1], rtol=1e-6)
