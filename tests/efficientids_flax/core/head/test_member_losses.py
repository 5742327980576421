"""Losses among the members of a cluster: every way gives what NumPy gives, position by position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.head import grouped, member_losses
from efficientids_flax.core.head.grouped import Adapter, Labels

RAW, WIDTH = 3, 5
# Float32 sums of up to a few hundred products of unit normals, in another order than NumPy's.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def adapt(kernel, rows):
    return jnp.tanh(rows @ kernel)


def entropy(logits, slots, valid):
    log_probs = jax.nn.log_softmax(jnp.where(valid, logits, -1e30))
    return -jnp.take_along_axis(log_probs, slots[..., None], axis=-1)[..., 0]


def problem(seed, num_items, num_clusters, positions, crowd=0.0, unlabelled=0.0):
    """Query, table, kernel and labels; `crowd` of the positions share a cluster."""
    rng = np.random.default_rng(seed)
    cluster_of = np.concatenate(
        [np.arange(num_clusters), rng.integers(0, num_clusters, num_items - num_clusters)]
    )
    rng.shuffle(cluster_of)
    size = np.bincount(cluster_of).max()
    members = np.full((num_clusters, size), -1, np.int32)
    for cluster in range(num_clusters):
        own = np.flatnonzero(cluster_of == cluster)
        members[cluster, : len(own)] = own
    clusters = rng.integers(0, num_clusters, positions)
    clusters[rng.random(positions) < crowd] = 0
    slots = rng.integers(0, np.sum(members[clusters] >= 0, axis=-1))
    clusters[rng.random(positions) < unlabelled] = num_clusters
    query, rows, kernel = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((positions, WIDTH), (num_items, RAW), (RAW, WIDTH))
    )
    return query, rows, kernel, Labels(clusters.astype(np.int32), slots.astype(np.int32), members)


def weights_of(positions):
    return np.random.default_rng(1).random(positions).astype(np.float32)


def by_hand(query, rows, kernel, labels, weights):
    """Losses, and the gradients of their weighted sum: float64, one position after the other."""
    query, rows, kernel, weights = (np.asarray(x, float) for x in (query, rows, kernel, weights))
    each = np.zeros(len(query))
    of_query, of_rows, of_kernel = (np.zeros(x.shape) for x in (query, rows, kernel))
    for place, (cluster, slot) in enumerate(zip(labels.clusters, labels.slots, strict=True)):
        if cluster == len(labels.members):
            continue
        own = labels.members[cluster]
        own = own[own >= 0]
        adapted = np.tanh(rows[own] @ kernel)
        logits = adapted @ query[place]
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        each[place] = -np.log(chances[slot])
        of_logits = weights[place] * (chances - (np.arange(len(own)) == slot))
        of_query[place] = of_logits @ adapted
        of_products = np.outer(of_logits, query[place]) * (1 - adapted**2)
        of_rows[own] += of_products @ kernel.T
        of_kernel += rows[own].T @ of_products
    return each, (of_query, of_rows, of_kernel)


def found(query, rows, kernel, labels, weights=None):
    return member_losses.member_losses(
        entropy, query, rows, labels, weights, Adapter(adapt, kernel)
    )


def check(query, rows, kernel, labels):
    """The losses, and their weighted sum's gradients: of the total, and of the losses."""
    weights = weights_of(len(query))
    each, gradients = by_hand(query, rows, kernel, labels, weights)

    def total(query, rows, kernel, weights):
        losses = found(query, rows, kernel, labels, weights)
        return losses.total, losses

    def summed(query, rows, kernel):
        return jnp.sum(found(query, rows, kernel, labels).each * weights)

    @jax.jit
    def both(*given):
        of_total = jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True)(*given, weights)
        return of_total, jax.grad(summed, argnums=(0, 1, 2))(*given), found(*given, labels).each

    ((got, losses), (*of_total, of_weights)), of_each, plain = both(query, rows, kernel)
    np.testing.assert_allclose(got, each @ weights, rtol=1e-5)
    for one in (losses.each, of_weights, plain):
        np.testing.assert_allclose(one, each, **CLOSE)
    for way in (of_total, of_each):
        for a, b in zip(way, gradients, strict=True):
            np.testing.assert_allclose(a, b, **CLOSE)


@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 99),
    st.integers(1, 9),
    st.integers(0, 30),
    st.integers(1, 90),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_any_clustering(seed, num_clusters, more_items, positions, unlabelled):
    check(*problem(seed, num_clusters + more_items, num_clusters, positions, 0.3, unlabelled))


@pytest.mark.parametrize("rows", [1, 40, 10**6])  # a cluster, a few, or all of them at a time
@pytest.mark.parametrize("crowd", [0.0, 0.9])  # the others leave clusters that nobody asks for
def test_clusters_are_visited_a_few_at_a_time(monkeypatch, rows, crowd):
    monkeypatch.setattr(grouped, "CPU_ROWS", rows)
    check(*problem(5, 60, 7, 70, crowd, unlabelled=0.1))


def test_a_crowded_cluster_fills_many_blocks(monkeypatch):
    monkeypatch.setattr(grouped, "LARGEST_BLOCK", 8)
    check(*problem(0, 20, 3, 61, crowd=1.0))


@pytest.mark.parametrize("allowed", [1, 3 * 4 * WIDTH])
def test_gathers_are_taken_a_few_positions_at_a_time(monkeypatch, allowed):
    monkeypatch.setattr(member_losses, "GATHERED", allowed)
    monkeypatch.setattr(member_losses, "MOST_PADDING", 0)
    check(*problem(3, 12, 5, 23, unlabelled=0.2))


@pytest.mark.parametrize(("positions", "way"), [(4, "_gathered"), (40, "_weighted")])
def test_members_are_gathered_where_they_are_few(monkeypatch, positions, way):
    query, rows, kernel, labels = problem(0, 800, 40, positions)
    each, _ = by_hand(query, rows, kernel, labels, weights_of(positions))
    for other in {"_gathered", "_weighted"} - {way}:
        monkeypatch.setattr(member_losses, other, None)
    losses = jax.jit(found)(query, rows, kernel, labels, weights_of(positions))
    np.testing.assert_allclose(losses.each, each, **CLOSE)


def test_a_lopsided_clustering_is_not_padded(monkeypatch):
    query, rows, kernel, _ = problem(0, 300, 30, 64)
    members = np.full((30, 271), -1, np.int32)
    members[0] = np.arange(271)
    members[1:, 0] = np.arange(271, 300)
    clusters = np.arange(64, dtype=np.int32) % 30
    monkeypatch.setattr(member_losses, "_each", None)
    monkeypatch.setattr(member_losses, "_weighted", None)
    check(query, rows, kernel, Labels(clusters, np.zeros(64, np.int32), members))


def test_gradients_of_total_and_losses_together():
    query, rows, kernel, labels = problem(4, 30, 4, 50)
    weights, more = weights_of(50), weights_of(50)[::-1]
    _, gradients = by_hand(query, rows, kernel, labels, 3 * weights + more)

    def both(query, rows, kernel):
        losses = found(query, rows, kernel, labels, weights)
        return 3 * losses.total + jnp.sum(losses.each * more)

    got = jax.jit(jax.grad(both, argnums=(0, 1, 2)))(query, rows, kernel)
    for a, b in zip(got, gradients, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def adapted_in(function, *given):
    """How often a program adapts members: calls of the adapter while it is traced."""
    calls = []

    def counted(kernel, rows):
        calls.append(rows.shape)
        return adapt(kernel, rows)

    def adapted(query, rows, kernel):
        return function(query, rows, Adapter(counted, kernel))

    jax.jit(jax.grad(adapted, argnums=(0, 1, 2))).lower(*given)
    return len(calls)


def test_the_gradient_of_the_total_adapts_the_members_once():
    *given, labels = problem(0, 300, 10, 64)
    weights = weights_of(64)

    def losses(query, rows, adapter):
        return member_losses.member_losses(entropy, query, rows, labels, weights, adapter)

    assert adapted_in(lambda *given: losses(*given).total, *given) == 1
    assert adapted_in(lambda *given: losses(*given).each.sum(), *given) == 2


def test_the_adapted_table_is_never_there_as_a_whole():
    query, rows, kernel, labels = problem(0, 32 * 300, 32, 512)
    weights, slots = weights_of(512), labels.members.shape[1]

    def total(query, rows, kernel):
        return found(query, rows, kernel, labels, weights).total

    text = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(query, rows, kernel).as_text()
    assert f"tensor<{slots}x{WIDTH}xf32>" in text
    for shape in (f"{len(rows)}", f"32x{slots}", f"{32 * slots}"):
        assert f"tensor<{shape}x{WIDTH}xf32>" not in text
    assert f"tensor<512x{slots}x{WIDTH}xf32>" not in text  # nor a gather for every position
