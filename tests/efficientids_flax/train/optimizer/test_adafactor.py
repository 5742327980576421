"""Parts of ShardedAdafactor: quantisation, choice of axes, decay rates, clips."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.train.optimizer import clipping
from efficientids_flax.train.optimizer.adafactor import BUCKETS, decay_rate, factored_axes, quantize
from efficientids_flax.train.optimizer.clipping import clip_by_rms, clip_gradients
from efficientids_flax.train.optimizer.variables import variables_of

CONFIG = OptimizerConfig("sharded_adafactor", decay_method="adam", decay_adam=0.9)
SORTED = replace(CONFIG, sort_factored_second_moment_dims=True, min_dim_size_to_factor=8)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=5)
# Smaller ones have subnormal scales, which XLA takes for zero.
SIZES = st.floats(2.0**-100, 1e3, width=32)
QUANTIZE = jax.jit(quantize, static_argnums=1)
VALUES = st.just(0.0) | SIZES | SIZES.map(lambda size: -size)


@settings(deadline=None, max_examples=40)
@given(
    SHAPES.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=VALUES)),
    st.sampled_from(sorted(BUCKETS)),
)
def test_quantised_values_are_half_a_quantum_off_at_most(values: np.ndarray, dtype: str):
    integers, scale = QUANTIZE(jnp.asarray(values), dtype)
    assert integers.dtype == dtype
    assert scale.shape == values.shape[1:]
    again = np.asarray(integers, np.float32) * np.asarray(scale)
    # Half, and a rounding of the quotient of at most 32767.
    assert (np.abs(again - values) <= (0.5 + 2e-3) * np.asarray(scale) + 1e-38).all()
    assert np.abs(np.asarray(integers, np.int32)).max() <= BUCKETS[dtype]
    largest = np.take_along_axis(again, np.abs(values).argmax(0)[None], 0)
    wanted = np.take_along_axis(values, np.abs(values).argmax(0)[None], 0)
    np.testing.assert_allclose(largest, wanted, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize(
    ("config", "shape", "axes"),
    [
        (CONFIG, (), None),
        (CONFIG, (9,), None),
        (CONFIG, (2, 3), (1, 0)),
        (CONFIG, (9, 2, 3), (2, 1)),
        (replace(CONFIG, factored=False), (9, 9), None),
        (SORTED, (9, 2, 8), (0, 2)),
        (SORTED, (8, 2, 8), (0, 2)),  # the first of equal sizes is the larger
        (SORTED, (9, 7), None),
    ],
)
def test_factored_axes(
    config: OptimizerConfig, shape: tuple[int, ...], axes: tuple[int, int] | None
):
    assert factored_axes(shape, config) == axes


def test_decay_rates():
    power = replace(CONFIG, decay_method="pow", decay_pow=0.8)
    for count in (0, 1, 7):
        step = count + 1
        wanted = 0.9 * (1 - 0.9**count) / (1 - 0.9**step)
        assert float(decay_rate(CONFIG, jnp.int32(count))) == pytest.approx(wanted, abs=1e-6)
        found = float(decay_rate(power, jnp.int32(count)))
        assert found == pytest.approx(1 - step**-0.8, abs=1e-6)


def test_clip_of_the_root_mean_square():
    update = jnp.array([[3.0, 4.0], [0.0, 0.0]])  # RMS 2.5
    np.testing.assert_allclose(clip_by_rms(update, 0.5, sticky=True), update / 5, rtol=1e-6)
    np.testing.assert_array_equal(clip_by_rms(update, 3.0, sticky=True), update)
    huge = jnp.array([1e30, 1.0])
    assert np.isnan(clip_by_rms(huge, 1.0, sticky=True)).all()
    np.testing.assert_array_equal(clip_by_rms(huge, 1.0, sticky=False), [0, 0])


def test_large_arrays_are_averaged_by_rows(monkeypatch: pytest.MonkeyPatch):
    values = jnp.arange(12.0).reshape(3, 4)
    plain = clipping.mean(values)
    monkeypatch.setattr(clipping, "LARGE", 10)
    assert float(clipping.mean(values)) == float(plain) == 5.5


def test_clips_of_gradients():
    gradients = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0]])}
    config, variables = OptimizerConfig("sgd"), variables_of(None)
    for fields, a, b in (
        ({}, 3.0, 4.0),
        ({"clip_gradient_norm_to_value": 1.0}, 0.6, 0.8),
        ({"clip_gradient_norm_to_value": 6.0}, 3.0, 4.0),
        ({"clip_gradient_single_norm_to_value": 3.5}, 3.0, 3.5),
    ):
        found, valid = clip_gradients(gradients, replace(config, **fields), variables)
        assert bool(valid)
        assert float(found["a"][0]) == pytest.approx(a, rel=1e-6)
        assert float(found["b"][0, 0]) == pytest.approx(b, rel=1e-6)


def test_parts_of_one_variable_share_its_norm():
    names = {"a": "params/w", "b": "params/w"}
    config = OptimizerConfig("sgd", clip_gradient_single_norm_to_value=1.0)
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0]), "c": jnp.array([5.0])}
    found, _ = clip_gradients(gradients, config, variables_of(None, True, names))
    assert [float(found[p][0]) for p in "abc"] == pytest.approx([0.6, 0.8, 1.0], rel=1e-6)


@pytest.mark.parametrize(("limit", "valid"), [(0.0, True), (5.0, False), (5.1, True)])
def test_steps_with_a_large_gradient_are_not_valid(limit: float, valid: bool):
    config = OptimizerConfig("sgd", skip_step_gradient_norm_value=limit)
    gradients = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    assert bool(clip_gradients(gradients, config, variables_of(None))[1]) is valid


def test_no_gradients_at_all():
    found, valid = clip_gradients({}, OptimizerConfig("sgd"), variables_of(None))
    assert found == {}
    assert bool(valid)
