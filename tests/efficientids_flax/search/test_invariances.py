"""Momentum tells a cap from none and which, and activations apart, where the theory says so."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.search.invariances import Momentum, momentum_of
from efficientids_flax.search.losses import sequence_losses
from tests.efficientids_flax.search import small
from tests.efficientids_flax.search.small import grown, sequences

CONFIG = replace(small.CONFIG, num_layers=1)  # each has the same invariances


def trained_with(config, params, seed=1) -> Any:
    """A sum of gradients of other sequences, as momentum is one."""
    other = sequences(32)
    mixture = np.random.default_rng(seed).standard_normal(32).astype(np.float32)

    def loss(params, batch):
        return jnp.sum(mixture * sequence_losses(config, params, batch))

    return jax.jit(jax.grad(loss))(params, dict(other.batch))


def distances(config, key, values):
    """Of the momentum of a model, from models with other values: value -> distance."""
    params = grown(config)
    momentum = Momentum(config, params, trained_with(config, params), sequences())
    found = {value: momentum.distance(replace(config, **{key: value}), key) for value in values}
    return {value: distance for value, distance in found.items() if distance is not None}


@pytest.mark.parametrize("true", [None, 5.0], ids=["none", "5"])
def test_a_cap_on_logits_leaves_a_sum_of_the_words(true):
    config = replace(CONFIG, final_logit_cap=true)
    found = distances(config, "final_logit_cap", (None, 5.0))
    assert found[true] < 4.0 < found[5.0 if true is None else None]


@pytest.mark.parametrize("true", [None, 5.0], ids=["none", "5"])
def test_a_cap_on_attention_moves_keys_that_are_shifted_alike(true):
    config = replace(CONFIG, attention_logit_cap=true)
    found = distances(config, "attention_logit_cap", (None, 5.0))
    assert found[true] < 4.0 < found[5.0 if true is None else None]


@pytest.mark.parametrize("true", ["relu", "squared_relu", "silu"])
def test_homogeneous_activations_are_told_by_eulers_theorem(true):
    config = replace(CONFIG, activation=true)
    params = grown(config, 2.0)
    found = Momentum(config, params, trained_with(config, params), sequences())
    for name in ("relu", "squared_relu", "silu"):
        distance = found.distance(replace(config, activation=name), "activation")
        assert distance is not None
        assert (distance < 4.0) == (name == true), (name, distance)


def test_a_scaled_momentum_says_the_same():
    params = grown(CONFIG)
    momentum = trained_with(CONFIG, params)
    smaller = jax.tree.map(lambda leaf: np.float32(1e-4) * np.asarray(leaf), momentum)
    one, two = (
        Momentum(CONFIG, params, moments, sequences()).distance(CONFIG, "activation")
        for moments in (momentum, smaller)
    )
    assert one == pytest.approx(two, abs=0.02)  # deviations; float32 rounds the momentum


def test_settings_without_an_invariance_have_no_distance():
    params = grown(CONFIG)
    found = Momentum(CONFIG, params, params, sequences())
    assert found.distance(CONFIG, "norm_epsilon") is None
    without = replace(CONFIG, qkv_bias=False)
    params = grown(without)
    found = Momentum(without, params, params, sequences())
    assert found.distance(without, "attention_logit_cap") is None


def test_momentum_is_found_in_the_states_that_have_one():
    params = {"a": {"kernel": np.ones(3, np.float32)}}
    adam: Any = optax.scale_by_adam().init(params)
    assert momentum_of({"empty": optax.EmptyState(), "adam": adam}) is not None
    assert momentum_of({"momentum": optax.trace(0.9).init(params)}) is not None
    assert momentum_of({"empty": optax.EmptyState()}) is None
