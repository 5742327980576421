"""Rotary positions against complex numbers and the papers' formulas, and what must hold of them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.backbone.positions.frequencies import attention_factor, frequencies
from efficientids_flax.backbone.positions.rotary import rotate, timescales, turn
from efficientids_flax.config import RotaryConfig, RotaryScalingConfig

HEAD = 8
PAIRINGS = ("half_split", "interleaved")


@partial(jax.jit, static_argnames="config")
def turned_rows(x, positions, config):
    """[1, T, 1, H] at these positions [1, T]."""
    return rotate(x, turn(config, x.shape[-1], positions), config)


def turned(x, positions, config):
    """[T, H] at these positions."""
    return np.asarray(turned_rows(x[None, :, None], np.array(positions)[None], config))[0, :, 0]


def scales(config, width=HEAD, longest=0):
    found, factor = frequencies(config, width, jnp.asarray(longest))
    return 1 / np.asarray(found), factor


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_pairs_turn_as_complex_numbers(pairing):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(5, HEAD)).astype(np.float32)
    positions = np.array([0, 1, 7, 40, 300])
    halves = {"half_split": (x[:, :4], x[:, 4:]), "interleaved": (x[:, ::2], x[:, 1::2])}
    first, second = halves[pairing]
    angles = positions[:, None] / 10_000.0 ** (np.arange(4) / 4)
    wanted = (first + 1j * second) * np.exp(1j * angles)
    found = turned(x, positions, RotaryConfig(pairing=pairing))
    halves = {
        "half_split": (found[:, :4], found[:, 4:]),
        "interleaved": (found[:, ::2], found[:, 1::2]),
    }
    # float32 angles of up to 300 radians are off by 300 * 2^-24 = 2e-5
    np.testing.assert_allclose(halves[pairing][0], wanted.real, atol=6e-5)
    np.testing.assert_allclose(halves[pairing][1], wanted.imag, atol=6e-5)


def test_an_odd_width_is_rounded_up_and_keeps_its_base():
    """A part of 3 of 8 numbers turns 4, by the base to the powers 0 and 2/3 (HuggingFace)."""
    x = np.random.default_rng(0).normal(size=(2, HEAD)).astype(np.float32)
    config = RotaryConfig(fraction=0.4, by_frequency=True, max_timescale=1000.0)
    found = turned(x, [0, 7], config)
    angles = 7 / np.array([1, 1000 ** (2 / 3)])
    wanted = (x[1, :2] + 1j * x[1, 2:4]) * np.exp(1j * angles)
    np.testing.assert_allclose(found[1, :2], wanted.real, atol=1e-5)
    np.testing.assert_allclose(found[1, 2:4], wanted.imag, atol=1e-5)
    np.testing.assert_array_equal(found[:, 4:], x[:, 4:])


@given(
    st.sampled_from(PAIRINGS), st.integers(0, 400), st.integers(0, 400), st.integers(0, 2**31 - 1)
)
@settings(max_examples=40, deadline=None)
def test_norms_stay_and_products_see_only_the_distance(pairing, place, shift, seed):
    config = RotaryConfig(pairing=pairing)
    x = np.random.default_rng(seed).normal(size=(2, HEAD)).astype(np.float32)
    near, far = turned(x, [3, place], config), turned(x, [3 + shift, place + shift], config)
    size = np.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(near, axis=-1), size, rtol=1e-5)
    # angles of up to 800 radians: off by 800 * 2^-24 = 5e-5 each
    difference = near[0] @ near[1] - far[0] @ far[1]
    assert abs(difference) <= 2e-4 * size.prod()


def test_what_lies_beyond_the_fraction_passes_through():
    x = np.random.default_rng(0).normal(size=(2, HEAD)).astype(np.float32)
    found = turned(x, [5, 9], RotaryConfig(fraction=0.5))
    np.testing.assert_array_equal(found[:, 4:], x[:, 4:])
    np.testing.assert_allclose(found[:, :4], turned(x[:, :4], [5, 9], RotaryConfig()), rtol=1e-6)


def test_timescales_run_from_the_least_to_the_greatest():
    config = RotaryConfig(min_timescale=2.0, max_timescale=2.0 * 3.0**4)
    np.testing.assert_allclose(timescales(config, HEAD), [2, 6, 18, 54], rtol=1e-6)
    found, factor = scales(config)
    np.testing.assert_allclose(found, [2, 6, 18, 54], rtol=1e-6)
    assert factor == 1


def test_frequencies_are_rounded_as_pytorch_rounds_them():
    """1 / float32(base ** exponent), the exponent float32: recorded from torch 2.13."""
    found, _ = frequencies(RotaryConfig(max_timescale=1e6), 128, jnp.asarray(0))
    assert found.dtype == np.float32
    bits = found.view(np.uint32)[[1, 2, 7, 20, 33, 40, 63]]
    assert [hex(word) for word in bits] == [
        "0x3f4e4bad",
        "0x3f263de0",
        "0x3e61f835",
        "0x3c5a7bf2",
        "0x3a533f28",
        "0x393a7753",
        "0x35a68e4c",
    ]
    angles = turn(RotaryConfig(max_timescale=1e6, by_frequency=True), 128, jnp.asarray([[40_000]]))
    np.testing.assert_allclose(
        angles.cosine[0, 0, 0], np.cos(np.float32(40_000) * found), atol=2e-7
    )


def scaled(kind, **named):
    return RotaryConfig(scaling=RotaryScalingConfig(kind=kind, **named))


def test_linear_scaling_divides_positions():
    x = np.random.default_rng(0).normal(size=(3, HEAD)).astype(np.float32)
    found = turned(x, [0, 8, 40], scaled("linear", factor=4.0))
    np.testing.assert_allclose(found, turned(x, [0, 2, 10], RotaryConfig()), atol=1e-6)


def test_dynamic_scaling_begins_behind_the_trained_length():
    config = scaled("dynamic", factor=2.0, original_max_positions=16)
    plain, _ = scales(RotaryConfig())
    np.testing.assert_allclose(scales(config, longest=15)[0], plain, rtol=1e-6)
    # at twice the length the base grows by (2 * 2 - 1)^(8 / 6)
    wanted = (10_000.0 * 3 ** (8 / 6)) ** (np.arange(4) / 4)
    np.testing.assert_allclose(scales(config, longest=31)[0], wanted, rtol=1e-5)


def test_llama3_scaling_stretches_long_waves_only():
    config = RotaryConfig(
        max_timescale=500_000.0,
        scaling=RotaryScalingConfig(
            kind="llama3", factor=8.0, original_max_positions=64, low_freq_factor=1.0,
            high_freq_factor=4.0,
        ),
    )  # fmt: skip
    plain = 500_000.0 ** (np.arange(8) / 8)
    found, factor = scales(config, width=16)
    waves = 2 * np.pi * plain
    assert factor == 1
    np.testing.assert_allclose(found[waves < 16], plain[waves < 16], rtol=1e-6)
    np.testing.assert_allclose(found[waves > 64], 8 * plain[waves > 64], rtol=1e-6)
    between = (waves > 16) & (waves < 64)
    assert between.any()
    share = (64 / waves[between] - 1) / 3
    frequencies = (1 - share) / plain[between] / 8 + share / plain[between]
    np.testing.assert_allclose(found[between], 1 / frequencies, rtol=1e-5)


def test_yarn_scaling_interpolates_slow_pairs_and_leaves_fast_ones():
    config = RotaryConfig(
        scaling=RotaryScalingConfig(
            kind="yarn", factor=4.0, original_max_positions=256, beta_fast=32.0, beta_slow=1.0
        )
    )
    plain, _ = scales(RotaryConfig(), width=64)
    found, factor = scales(config, width=64)

    def pair(turns):
        """The pair that turns so often over the trained length, equation 17 of the paper."""
        return 64 * math.log(256 / (turns * 2 * math.pi)) / (2 * math.log(10_000))

    first, last = math.floor(pair(32)), math.ceil(pair(1))
    assert first < last
    ramp = np.clip((np.arange(32) - first) / (last - first), 0, 1)
    np.testing.assert_allclose(1 / found, (1 - ramp) / plain + ramp / plain / 4, rtol=1e-5)
    assert factor == pytest.approx(0.1 * math.log(4) + 1)  # the paper's temperature


def test_yarn_keeps_broken_ends_where_they_are_not_truncated():
    given = {"kind": "yarn", "factor": 4.0, "original_max_positions": 256}
    whole = scales(RotaryConfig(scaling=RotaryScalingConfig(**given)), width=64)[0]
    broken = scales(RotaryConfig(scaling=RotaryScalingConfig(**given, truncate=False)), width=64)[0]
    assert not np.array_equal(whole, broken)
    np.testing.assert_allclose(whole[[0, -1]], broken[[0, -1]], rtol=1e-6)


def test_longrope_takes_the_long_factors_when_a_position_passes_the_trained_length():
    short, long = (1.0, 1.5, 2.0, 3.0), (2.0, 4.0, 8.0, 16.0)
    config = scaled(
        "longrope", factor=4.0, original_max_positions=16, short_factors=short, long_factors=long
    )
    plain, _ = scales(RotaryConfig())
    np.testing.assert_allclose(scales(config, longest=15)[0], plain * short, rtol=1e-6)
    found, factor = scales(config, longest=16)
    np.testing.assert_allclose(found, plain * long, rtol=1e-6)
    assert factor == pytest.approx(math.sqrt(1 + math.log(4) / math.log(16)))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"kind": "yarn", "factor": 0.5}, 1.0),
        ({"kind": "yarn", "factor": 8.0, "attention_factor": 1.25}, 1.25),
        (
            {"kind": "yarn", "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 0.5},
            (0.07 * math.log(8) + 1) / (0.05 * math.log(8) + 1),
        ),
        ({"kind": "yarn", "factor": 8.0, "mscale": 0.7}, 0.1 * math.log(8) + 1),
        ({"kind": "linear", "factor": 8.0}, 1.0),
    ],
)
def test_attention_factors(changes, wanted):
    scaling = RotaryScalingConfig(original_max_positions=64, **changes)
    assert attention_factor(scaling) == pytest.approx(wanted)


def test_the_attention_factor_multiplies_what_is_turned():
    x = np.ones((2, HEAD), np.float32)
    found = turned(x, [0, 0], scaled("yarn", factor=8.0, original_max_positions=64))
    np.testing.assert_allclose(found, x * (0.1 * math.log(8) + 1), rtol=1e-6)


def test_cosines_are_rounded_first_where_the_family_does_so():
    places = np.arange(50)
    x = np.random.default_rng(0).normal(size=(50, HEAD)).astype(jnp.bfloat16)
    exact = turned(x.astype(np.float32), places, RotaryConfig())
    late = turned(x, places, RotaryConfig())
    early = turned(x, places, RotaryConfig(in_float32=False))
    assert late.dtype == early.dtype == jnp.bfloat16
    np.testing.assert_array_equal(late, exact.astype(jnp.bfloat16))  # one rounding, at the end
    assert np.mean(early != late) > 0.1
    np.testing.assert_allclose(early.astype(np.float32), exact, atol=4 * 2**-8)
