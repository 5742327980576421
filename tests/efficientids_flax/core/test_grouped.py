"""Products with the members of a cluster: every way gives what NumPy's plain sum gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core import grouped
from efficientids_flax.core.grouped import member_products

WIDTH = 5


def problem(seed, num_items, num_clusters, positions, crowd=0.0):
    """Query, table, clusters of the positions and members; `crowd` of the positions share one."""
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
    query = rng.normal(size=(positions, WIDTH)).astype(np.float32)
    items = rng.normal(size=(num_items, WIDTH)).astype(np.float32)
    return query, items, clusters.astype(np.int32), members


def by_hand(query, items, clusters, members, weights):
    """Products where there is a member, and the gradients of their weighted sum."""
    products = np.zeros((len(query), members.shape[1]))
    d_query, d_items = np.zeros(query.shape), np.zeros(items.shape)
    for position, cluster in enumerate(clusters):
        for slot, item in enumerate(members[cluster]):
            if item >= 0:
                products[position, slot] = query[position].astype(float) @ items[item]
                d_query[position] += weights[position, slot] * items[item]
                d_items[item] += weights[position, slot] * query[position]
    return products, d_query, d_items


def check(query, items, clusters, members):
    there = members[clusters] >= 0
    weights = np.random.default_rng(1).normal(size=there.shape) * there
    want = by_hand(query, items, clusters, members, weights)

    def total(query, items):
        found = jnp.where(there, member_products(query, items, clusters, members), 0.0)
        return jnp.sum(found * weights), found

    (_, found), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(
        query, items
    )
    # Sums of a few dozen products of unit normals in float32: some roundings of 6e-8 times 10.
    for got, wanted in zip((found, *gradients), want, strict=True):
        np.testing.assert_allclose(got, wanted, atol=3e-5)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 99), st.integers(1, 9), st.integers(0, 30), st.integers(1, 90))
def test_any_clustering(seed, num_clusters, more_items, positions):
    check(*problem(seed, num_clusters + more_items, num_clusters, positions, crowd=0.3))


@pytest.mark.parametrize("rows", [1, 40, 10**6])  # a cluster, a few, or all of them at a time
@pytest.mark.parametrize("crowd", [0.0, 0.9])
def test_members_are_adapted_a_few_clusters_at_a_time(monkeypatch, rows, crowd):
    monkeypatch.setattr(grouped, "CPU_ROWS", rows)
    query, _, clusters, members = problem(5, 60, 7, 70, crowd)
    raw = np.random.default_rng(2).normal(size=(60, 3)).astype(np.float32)
    kernel = np.random.default_rng(3).normal(size=(3, WIDTH)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=members[clusters].shape)
    weights *= members[clusters] >= 0

    def at_a_time(query, raw, kernel):
        found = member_products(query, raw, clusters, members, lambda x: jnp.tanh(x @ kernel))
        return jnp.sum(jnp.where(members[clusters] >= 0, found, 0.0) * weights)

    def all_at_once(query, raw, kernel):  # checked by hand in the other tests
        found = jnp.einsum("pw,pmw->pm", query, jnp.tanh(raw @ kernel)[members[clusters]])
        return jnp.sum(found * weights)

    given = (query, raw, kernel)
    got, wanted = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(*given) for f in (at_a_time, all_at_once)
    )
    # Sums of up to 70 products; the order of a sum is what differs.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-5), got, wanted)


def test_the_adapted_table_is_never_there_as_a_whole():
    query, items, clusters, members = problem(0, 32 * 300, 32, 512)
    wide = 2 * WIDTH
    query = np.concatenate([query, query], axis=1)

    def adapter(x):
        return jnp.concatenate([x, jnp.tanh(x)], axis=-1)

    def total(query, items):
        return jnp.sum(member_products(query, items, clusters, members, adapter))

    text = jax.jit(jax.grad(total, argnums=(0, 1))).lower(query, items).as_text()
    assert f"x{wide}xf32>" in text
    slots = members.shape[1]
    for rows in (f"{len(items)}", f"32x{slots}", f"{32 * slots}"):
        assert f"tensor<{rows}x{wide}xf32>" not in text


def test_a_crowded_cluster_fills_blocks_of_its_own():
    check(*problem(0, 40, 4, 10 * grouped.GROUP, crowd=0.8))


def test_all_positions_in_one_cluster():
    check(*problem(0, 20, 3, 5 * grouped.GROUP + 1, crowd=1.0))


@pytest.mark.parametrize("allowed", [1, 3 * 4 * WIDTH])
def test_gathers_are_taken_a_few_positions_at_a_time(monkeypatch, allowed):
    monkeypatch.setattr(grouped, "GATHERED", allowed)
    monkeypatch.setattr(grouped, "MOST_PADDING", 0)
    check(*problem(3, 12, 5, 23))


def test_a_lopsided_clustering_is_not_padded(monkeypatch):
    query, items, _, _ = problem(0, 300, 30, 64)
    members = np.full((30, 271), -1, np.int32)
    members[0] = np.arange(271)
    members[1:, 0] = np.arange(271, 300)
    clusters = np.arange(64, dtype=np.int32) % 30
    monkeypatch.setattr(grouped, "_grouped", None)
    check(query, items, clusters, members)


def test_no_gather_for_every_position_where_positions_outnumber_clusters():
    positions, slots = 512, 8
    query, items, clusters, members = problem(0, 4 * slots, 4, positions)
    assert members.shape[1] >= slots
    text = jax.jit(member_products).lower(query, items, clusters, members).as_text()
    assert f"tensor<{positions}x{members.shape[1]}x{WIDTH}xf32>" not in text
