"""Transformer-XL's relative keys, against their definition pair by pair."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone.positions.relative_keys import RelativeKeys, by_key
from tests.efficientids_flax.backbone.small_decoders import LLAMA
from tests.efficientids_flax.compiled import applied

CONFIG = replace(LLAMA, num_kv_heads=4, relative_key_dims=6, qkv_bias=True)


def waves(distance, width):
    """Sinusoids of one distance, sines first (praxis/layers/embedding_softmax.py)."""
    scales = 10_000.0 ** (np.arange(width // 2) / max(width // 2 - 1, 1))
    return np.concatenate([np.sin(distance / scales), np.cos(distance / scales)])


@pytest.mark.parametrize(("times", "keys", "start"), [(4, 4, 0), (3, 7, 2), (1, 5, 4), (2, 1, 0)])
@pytest.mark.parametrize("biases", [True, False])
def test_logits_are_those_of_each_pair(times, keys, start, biases):
    config = replace(CONFIG, qkv_bias=biases)
    random = np.random.default_rng(0)
    params = {"kernel": random.normal(size=(6, 4, 6)).astype(np.float32)}
    if biases:
        params |= {
            name: random.normal(size=(4, 6)).astype(np.float32)
            for name in ("key_bias", "distance_bias")
        }
    query = random.normal(size=(2, times, 4, 6)).astype(np.float32)
    near, found = applied(RelativeKeys(config), {"params": params}, query, start, keys=keys)
    u, v = (params.get(name, np.zeros((4, 6))) for name in ("key_bias", "distance_bias"))
    np.testing.assert_allclose(near, query + u, rtol=1e-6)
    wanted = np.zeros((2, 4, times, keys))
    for t in range(times):
        for s in range(keys):
            key = np.einsum("p,pnh->nh", waves(start + t - s, 6), params["kernel"])
            wanted[:, :, t, s] = np.einsum("bnh,nh->bn", query[:, t] + v, key)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)  # float32 sums of 36 terms


def test_rows_shift_by_one_a_query():
    times, keys = 3, 5
    distances = np.arange(1 - keys, times)  # of the first query from the last key on
    logits = np.broadcast_to(distances, (1, 2, times, times + keys - 1)).astype(np.float32)
    found = by_key(jnp.asarray(logits), keys)
    wanted = np.arange(times)[:, None] - np.arange(keys)
    np.testing.assert_array_equal(found, np.broadcast_to(wanted, (1, 2, times, keys)))
    assert jax.eval_shape(lambda x: by_key(x, keys), logits).shape == (1, 2, times, keys)
