"""What is drawn, against the distribution in closed form; the filters, against their words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.backbone.sampling import SamplingConfig, filtered, sample

LOGITS = np.log(np.array([[0.05, 0.3, 0.1, 0.25, 0.2, 0.1]], np.float32))
DRAWS = 20_000
# Highest value of chi-square that 5 degrees of freedom pass once in a million draws of the seed.
UNLIKELY = 35.9


def frequencies(config, seed=0):
    logits = jnp.broadcast_to(jnp.asarray(LOGITS), (DRAWS, LOGITS.shape[1]))
    drawn = jax.jit(sample, static_argnums=1)(logits, config, jax.random.key(seed))
    return np.bincount(drawn, minlength=LOGITS.shape[1])


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (SamplingConfig(temperature=1.0), [0.05, 0.3, 0.1, 0.25, 0.2, 0.1]),
        (SamplingConfig(temperature=0.5), np.square([0.05, 0.3, 0.1, 0.25, 0.2, 0.1])),
        (SamplingConfig(temperature=1.0, top_k=3), [0, 0.3, 0, 0.25, 0.2, 0]),
        (SamplingConfig(temperature=1.0, top_p=0.5), [0, 0.3, 0, 0.25, 0, 0]),
        # of what top-k leaves, top-p takes its share: 0.3 + 0.25 of 0.75 is more than 0.7
        (SamplingConfig(temperature=1.0, top_k=3, top_p=0.7), [0, 0.3, 0, 0.25, 0, 0]),
    ],
)
def test_draws_follow_the_distribution(config, weights):
    found = frequencies(config)
    expected = DRAWS * np.asarray(weights) / np.sum(weights)
    assert (found[expected == 0] == 0).all()
    kept = expected > 0
    assert np.sum((found[kept] - expected[kept]) ** 2 / expected[kept]) < UNLIKELY


def test_greedy_takes_the_likeliest_and_needs_no_key():
    assert sample(jnp.asarray(LOGITS), SamplingConfig(), None) == 1


def test_all_that_are_as_likely_as_the_kth_stay():
    found = filtered(jnp.asarray(LOGITS), SamplingConfig(temperature=1.0, top_k=5))
    np.testing.assert_array_equal(np.isfinite(found), [[False, True, True, True, True, True]])
    found = filtered(jnp.asarray(LOGITS), SamplingConfig(temperature=1.0, top_k=4))
    np.testing.assert_array_equal(np.isfinite(found), [[False, True, True, True, True, True]])


@given(
    # Few sizes: for each of them every operation is compiled.
    st.sampled_from([2, 5, 12]).flatmap(
        lambda size: st.lists(st.integers(1, 1000), min_size=size, max_size=size, unique=True)
    ),
    st.floats(0.01, 0.99),
)
@settings(max_examples=60, deadline=None)
def test_top_p_is_the_smallest_set_of_the_likeliest_that_has_the_share(weights, share):
    probs = np.array(weights, np.float64) / sum(weights)
    order = np.argsort(-probs)
    before = np.cumsum(probs[order]) - probs[order]  # what more likely tokens have
    if np.abs(before - share).min() < 1e-5:
        return  # float32 may fall on either side
    wanted = np.zeros(len(probs), bool)
    wanted[order[before < share]] = True
    logits = jnp.log(jnp.asarray(probs, jnp.float32))[None]
    found = filtered(logits, SamplingConfig(temperature=1.0, top_p=share))
    np.testing.assert_array_equal(np.isfinite(found)[0], wanted)
    np.testing.assert_array_equal(np.asarray(found)[0, wanted], np.asarray(logits)[0, wanted])


def test_filters_that_leave_all_leave_the_logits_alone():
    config = SamplingConfig(temperature=1.0, top_k=100, top_p=1.0)
    np.testing.assert_array_equal(filtered(jnp.asarray(LOGITS), config), LOGITS)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"temperature": -1.0}, "temperature: expected at least 0, found -1.0"),
        ({"temperature": 1.0, "top_k": 0}, "top_k: expected above 0, found 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p: expected at most 1, found 1.5"),
        ({"top_k": 5}, "top_k: needs a temperature above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        SamplingConfig(**values)
