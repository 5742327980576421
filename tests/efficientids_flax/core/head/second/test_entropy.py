"""Sums of tiles, merged, are those of the whole."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.head.second.entropy import Entropy, Tile

MOST = 20  # members of a cluster


def tile_of(labels, first, rows, count):
    valid = first + jnp.arange(rows) < count
    return Tile(jnp.asarray(valid)[None], jnp.asarray(labels)[None] - first)


@partial(jax.jit, static_argnums=(0, 1))
def by_tiles(entropy, rows, products, labels, sizes, weights):
    """Losses and the gradients of the products; clusters of all sizes in one program."""
    parts = products.reshape(-1, 1, rows, 3)
    firsts = rows * jnp.arange(len(parts))

    def summed(part, first):
        tile = tile_of(labels, first, rows, sizes[0])
        logits = entropy.logits(part, tile)
        return logits, entropy.sums(logits, tile)

    def slopes(logits, first, sums):
        tile = tile_of(labels, first, rows, sizes[0])
        return entropy.gradients(logits, tile, sums, sizes, weights)[0]

    logits, each = jax.vmap(summed)(parts, firsts)
    first, rest = jax.tree.map(lambda x: x[0], each), jax.tree.map(lambda x: x[1:], each)
    sums, _ = jax.lax.scan(lambda sums, own: (sums.merged(own), None), first, rest)
    gradients = jax.vmap(slopes, in_axes=(0, 0, None))(logits, firsts, sums)
    return entropy.losses(sums, sizes)[0], gradients.reshape(-1, 3)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, MOST),
    st.integers(1, 7),
    st.sampled_from([1.0, 30.0, 1e4]),
    st.sampled_from([Entropy(), Entropy(smoothing=0.1), Entropy(cap=2.0)]),
    st.integers(0, 99),
)
def test_losses_and_gradients_do_not_depend_on_the_tiles(count, rows, scale, entropy, seed):
    rng = np.random.default_rng(seed)
    tiles = -(-MOST // rows) + 1  # the last ones hold no member
    products = (rng.normal(size=(1, tiles * rows, 3)) * scale).astype(np.float32)
    labels, sizes = rng.integers(0, count, 3), np.array([count])
    weights = np.array([[1.0, 0.5, 2.0]])
    losses, found = map(np.asarray, by_tiles(entropy, rows, products, labels, sizes, weights))
    capped = np.asarray(products[0, :count], float)
    if entropy.cap:
        capped = entropy.cap * np.tanh(capped / entropy.cap)
    largest = capped.max(axis=0)
    log_probs = capped - largest - np.log(np.exp(capped - largest).sum(axis=0))
    smoothing = entropy.smoothing if count > 1 else 0.0
    target = np.full((count, 3), smoothing / max(count - 1, 1))
    target[labels, np.arange(3)] = 1 - smoothing
    # Sums of a few float32, whose roundings grow with the magnitude.
    close = {"rtol": 1e-5, "atol": scale * 2e-6}
    np.testing.assert_allclose(losses, -np.sum(target * log_probs, axis=0), **close)
    slope = 1 - (capped / entropy.cap) ** 2 if entropy.cap else 1.0
    wanted = weights * (np.exp(log_probs) - target) * slope
    # exp turns an absolute rounding of the logits into a relative one.
    np.testing.assert_allclose(found[:count], wanted, rtol=1e-4 * max(scale, 1) ** 0.5, atol=1e-5)
    assert np.all(found[count:] == 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_cluster_of_one_member_has_no_loss(smoothing):
    entropy, sizes = Entropy(smoothing=smoothing), np.array([1])

    @jax.jit
    def losses_and_gradients(products):
        tile = tile_of(np.array([0]), 0, 2, 1)
        logits = entropy.logits(products, tile)
        sums = entropy.sums(logits, tile)
        slopes = entropy.gradients(logits, tile, sums, sizes, jnp.ones((1, 1)))
        return entropy.losses(sums, sizes), slopes

    for found in losses_and_gradients(np.array([[[3.0], [9.0]]])):
        assert np.all(np.asarray(found) == 0)


def test_a_position_that_is_not_there_has_no_gradient():
    """Its sums are zeros, and so is its weight; the others of its block must not see it."""
    entropy = Entropy()

    @jax.jit
    def gradients(products, weights):
        tile = tile_of(np.array([0, 0]), 0, 3, 3)
        logits = entropy.logits(products, tile)
        sums = jax.tree.map(lambda x: x.at[0, 1].set(0.0), entropy.sums(logits, tile))
        return entropy.gradients(logits, tile, sums, np.array([3]), weights)

    found = np.asarray(gradients(np.ones((1, 3, 2), np.float32), np.array([[1.0, 0.0]])))[0]
    np.testing.assert_allclose(found[:, 0], [-2 / 3, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1], 0)
