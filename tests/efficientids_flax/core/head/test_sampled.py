"""Sampled softmax against the full one: on average, with all items, in closed form."""

from dataclasses import replace
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.config import SampledSoftmaxConfig
from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.head.computation import Head
from efficientids_flax.core.head.passed import HeadInputs
from efficientids_flax.core.head.sampled import (
    Labels,
    Negatives,
    log_chances,
    negatives_of,
    sampled_cross_entropy,
)
from efficientids_flax.core.simple_model import SimpleEfficientIDSModel

ITEMS, WIDTH, WORDS = 4, 3, 2
RNG = np.random.default_rng(0)
QUERY = RNG.normal(size=(3, WIDTH)).astype(np.float32)
TABLE = RNG.normal(size=(ITEMS, WIDTH)).astype(np.float32)
LOGITS = RNG.normal(size=(3, WORDS)).astype(np.float32)
# Two items and a word.
LABELS = Labels(np.array([1, 3, 0]), np.array([True, True, False]), np.array([False, False, True]))


def full(cap=None, words=None):
    """float64 [3]: minus the log-probability of each label."""
    logits = QUERY.astype(float) @ TABLE.T.astype(float)
    if words is not None:
        logits = np.concatenate([words, logits], 1)
    if cap:
        logits = cap * np.tanh(logits / cap)
    own = LABELS.ids + np.where(LABELS.is_item, 0 if words is None else WORDS, 0)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(3), own]


def loss_of(config, cap=None):
    """The cross entropy with the negatives of the batch that it is given."""

    @jax.jit
    def loss(query, table, labels, words=None):
        drawn = negatives_of(config, ITEMS, labels, None)
        return sampled_cross_entropy(query, table, labels, drawn, cap, words)

    return loss


@pytest.mark.parametrize("cap", [None, 1.5])
def test_with_every_item_it_is_the_full_one(cap):
    """Words and all; the accidental hits are gone, or the labels would count twice."""

    found = loss_of(SampledSoftmaxConfig(count=9), cap)(QUERY, TABLE, LABELS, LOGITS)
    np.testing.assert_allclose(found, full(cap, LOGITS), rtol=1e-5)


def chances_of(popularity):
    """float64 [I], of every item."""
    logs = jax.jit(partial(log_chances, popularity, items=ITEMS))(np.arange(ITEMS))
    return np.exp(np.asarray(logs, float))


@pytest.mark.parametrize("popularity", ["uniform", "log_uniform"])
def test_its_sum_is_right_on_average(popularity):
    """exp(loss) is the estimate over exp(own): its mean over all pairs of draws, its slope's."""
    chances = chances_of(popularity)
    np.testing.assert_allclose(chances.sum(), 1, rtol=1e-6)
    draws = np.array(list(product(range(ITEMS), repeat=2)))
    weights = chances[draws].prod(axis=1).astype(np.float32)
    log_expected = np.log(2 * chances[draws])[:, None].astype(np.float32)

    def mean(query):
        def one(ids, log_expected):
            loss = sampled_cross_entropy(
                query, jnp.asarray(TABLE), LABELS, Negatives(ids, log_expected)
            )
            return jnp.exp(loss)[:2]

        return weights @ jax.vmap(one)(draws, log_expected)

    def wanted(query):
        logits = query @ TABLE.T
        own = jnp.take_along_axis(logits, jnp.asarray(LABELS.ids)[:, None], 1)
        return jnp.sum(jnp.exp(logits - own), axis=1)[:2]

    both = [jax.jit(jax.value_and_grad(lambda q, f=f: f(q).sum()))(QUERY) for f in (mean, wanted)]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-5)
    np.testing.assert_allclose(both[0][1], both[1][1], rtol=1e-4, atol=1e-5)


def test_draws_follow_their_chances():
    """Shares of 20,000 draws: four standard deviations."""
    config = SampledSoftmaxConfig("log_uniform", 20_000)
    drawn = jax.jit(partial(negatives_of, config, ITEMS))(LABELS, jax.random.key(0))
    chances = chances_of("log_uniform")
    shares = np.bincount(np.asarray(drawn.ids), minlength=ITEMS) / 20_000
    assert (np.abs(shares - chances) < 4 * np.sqrt(chances * (1 - chances) / 20_000)).all()
    expected = np.exp(np.asarray(drawn.log_expected))[0]
    np.testing.assert_allclose(expected, 20_000 * chances[np.asarray(drawn.ids)], rtol=1e-4)


def test_in_batch():
    """By hand: of the first position the other item's label, expected (2 - 1) / I times."""

    found = np.asarray(loss_of(SampledSoftmaxConfig("in_batch"))(QUERY, TABLE, LABELS))
    logits = QUERY.astype(float) @ TABLE.T.astype(float)
    odds = ITEMS * np.exp(logits[0, 3] - logits[0, 1])
    np.testing.assert_allclose(found[0], np.log1p(odds), rtol=1e-5)


def test_padding_is_no_negative():
    """Positions without a weight change nothing, and are no negatives of others."""
    config = HeadConfig(
        num_items=ITEMS, item_embedding_dim=WIDTH, full_softmax=True,
        sampled_softmax=SampledSoftmaxConfig("in_batch"),
    )  # fmt: skip
    head, labels = Head(config, None), np.array([1, 3, 0])

    @jax.jit
    def loss(weights):
        query, count = jnp.asarray(QUERY[: weights.size]), weights.size
        inputs = HeadInputs(query, query, jnp.asarray(TABLE), None)
        return head.loss(inputs, jnp.asarray(labels[:count]), weights).loss

    given = [1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1e-3]
    alone, padded, weighted = (float(loss(np.array(weights))) for weights in given)
    np.testing.assert_allclose(padded, alone, rtol=1e-6)
    assert abs(weighted - alone) > 1e-2  # with any weight it is one


def test_model_trains_with_it_and_is_measured_without():
    """The stream of random numbers is asked for by its name."""
    sampled = SampledSoftmaxConfig("log_uniform", 5)
    model = SimpleEfficientIDSModel(
        num_items=50, item_embedding_dim=4, model_dims=8, full_softmax=True, num_layers=1,
        num_heads=2, hidden_dims=8, sampled_softmax=sampled,
    )  # fmt: skip
    ids = np.array([[1, 2, 3]])
    variables = jax.jit(model.init)(jax.random.key(0), ids)
    with pytest.raises(ValueError, match="negatives"):
        jax.eval_shape(lambda given: model.apply(given, ids, training=True), variables)
    keys = [{"negatives": jax.random.key(seed)} for seed in (0, 0, 1)]
    loss = jax.jit(lambda keys: model.apply(variables, ids, training=True, rngs=keys)["loss"])
    losses = [float(loss(key)) for key in keys]
    assert losses[0] == losses[1] != losses[2]
    with pytest.raises(ValueError, match="sampled_softmax: needs label_smoothing 0"):
        replace(model.config, label_smoothing=0.1)
