"""The functions of the hierarchical softmax, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.core.head import hierarchical
from efficientids_flax.core.head.hierarchical import item_log_probs
from tests.efficientids_flax.core.model_cases import (
    CLOSE,
    CLUSTER_OF,
    CLUSTERS,
    ITEMS,
    clustering,
    inputs,
    normalised,
)

# Op by op each compiles a dozen programs for every shape.
first_pass_logits = jax.jit(hierarchical.first_pass_logits, static_argnums=3)
item_logits = jax.jit(hierarchical.item_logits, static_argnums=2)
item_scores = jax.jit(hierarchical.item_scores)
member_log_probs = jax.jit(hierarchical.member_log_probs, static_argnums=2)
normalisers = jax.jit(hierarchical.normalisers, static_argnums=2)
within_cluster = jax.jit(hierarchical.within_cluster, static_argnums=(4, 5))
LABELS = np.array([3, 6, 10, 0, 4, 12, 7, 8, 1])


def places():
    """Members of each label's cluster, and where the label stands among them."""
    tables = clustering()
    return tables.members[CLUSTER_OF[LABELS]], tables.slot_of[LABELS]


def test_within_cluster_is_the_entropy_among_the_members():
    given = inputs()
    got = within_cluster(given.query, given.items, *places(), None, 0.0)
    for place, label in enumerate(LABELS):
        own = np.flatnonzero(CLUSTER_OF[label] == CLUSTER_OF)
        logits = np.asarray(given.items, float)[own] @ np.asarray(given.query[place], float)
        want = -normalised(logits)[list(own).index(label)]
        np.testing.assert_allclose(got[place], want, **CLOSE)


def test_gradient_of_within_cluster_is_probability_minus_one():
    """d xent / d query = sum_m p_m item_m - item_label."""
    given = inputs()
    total = lambda query: within_cluster(query, given.items, *places(), None, 0.0).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(total))(given.query)
    items = np.asarray(given.items, float)
    for place, label in enumerate(LABELS):
        own = items[CLUSTER_OF[label] == CLUSTER_OF]
        chances = np.exp(normalised(own @ np.asarray(given.query[place], float)))
        np.testing.assert_allclose(gradient[place], chances @ own - items[label], **CLOSE)


def test_members_have_all_the_probability():
    given = inputs()
    chosen = clustering().members[CLUSTER_OF[LABELS]]
    logits = np.einsum("pw,pmw->pm", given.query, given.items[chosen])
    valid = chosen >= 0
    log_probs = member_log_probs(logits, valid, 0.1)
    np.testing.assert_allclose(np.where(valid, np.exp(log_probs), 0).sum(-1), 1, rtol=1e-6)
    assert np.all(np.exp(log_probs)[~valid] == 0)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_normalisers_are_finite_at_any_magnitude(scale):
    logits = np.random.default_rng(0).normal(size=(5, ITEMS)) * scale
    got = normalisers(logits.astype(np.float32), CLUSTER_OF, CLUSTERS)
    high = logits.max()
    want = [
        high + np.log(np.maximum(np.exp(logits[:, k == CLUSTER_OF] - high).sum(-1), 1e-300))
        for k in range(CLUSTERS)
    ]
    seen = np.stack(want, -1) > high - 600  # float64's own range
    np.testing.assert_allclose(np.asarray(got)[seen], np.stack(want, -1)[seen], rtol=1e-5)
    assert np.isfinite(got).all()


def test_gradient_of_normalisers_is_the_probability_in_the_cluster():
    logits = np.random.default_rng(0).normal(size=ITEMS).astype(np.float32)
    total = lambda x: normalisers(x, CLUSTER_OF, CLUSTERS).sum()  # noqa: E731
    gradient = np.asarray(jax.jit(jax.grad(total))(logits))
    for k in range(CLUSTERS):
        own = k == CLUSTER_OF
        np.testing.assert_allclose(gradient[own], np.exp(normalised(logits[own])), **CLOSE)


def test_leading_axes_are_free():
    """[B, T, W] gives what its rows give; so do queries without any leading axis."""
    given, tables = inputs(positions=6), clustering()
    cluster_of = jnp.asarray(tables.cluster_of)
    cube = given.query.reshape(2, 3, -1)
    words = given.word_logits.reshape(2, 3, -1)
    flat = first_pass_logits(given.word_logits, given.query, given.clusters, 5.0)
    np.testing.assert_allclose(
        first_pass_logits(words, cube, given.clusters, 5.0).reshape(6, -1), flat, **CLOSE
    )
    for function in (
        lambda query: item_logits(query, given.items, None),
        lambda query: item_scores(query, given.items, given.clusters, cluster_of),
        jax.jit(
            lambda query: item_log_probs(
                jnp.zeros((*query.shape[:-1], CLUSTERS)), query, given.items, cluster_of, None
            )
        ),
    ):
        flat = function(given.query)
        np.testing.assert_allclose(function(cube).reshape(6, -1), flat, **CLOSE)
        np.testing.assert_allclose(function(given.query[0]), flat[0], **CLOSE)


def test_half_precision_products_have_float32_softmaxes():
    given = inputs()
    half = given.query.astype(jnp.bfloat16)
    items, clusters = given.items.astype(jnp.bfloat16), given.clusters.astype(jnp.bfloat16)
    assert first_pass_logits(None, half, clusters, None).dtype == jnp.float32
    assert within_cluster(half, items, *places(), None, 0.1).dtype == jnp.float32
    assert item_scores(half, items, clusters, jnp.asarray(CLUSTER_OF)).dtype == jnp.float32
