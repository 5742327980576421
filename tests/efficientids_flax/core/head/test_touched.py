"""Each row that a batch touches has one place, and nothing else has one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import touched as module
from efficientids_flax.core.head.touched import (
    NOWHERE,
    in_item_order,
    in_row_order,
    places_for,
    row_of,
    touched_by,
)

ITEMS, CLUSTERS = 23, 6
LONGEST = 5
IDS = st.lists(st.integers(-2, ITEMS + 1), max_size=LONGEST)
CLUSTERING = ClusteringInfo.from_assignments(
    np.random.default_rng(0).permutation([0, 1, 2, 3, 4, 5] + [1] * 3 + [3] * 6 + [5] * 8)
)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Clusters of several blocks."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 3 * 4 * 4)
    monkeypatch.setattr(module, "LEAST_BLOCK", 3)


def test_orders():
    """Cluster by cluster and back, with rows to spare."""
    table = np.random.default_rng(0).normal(size=(2, ITEMS)).astype(np.float32)
    laid = np.asarray(jax.jit(partial(in_row_order, CLUSTERING))(table))
    order = np.argsort(CLUSTERING.cluster_of, kind="stable")
    np.testing.assert_array_equal(laid[:ITEMS], table.T[order])
    assert len(laid) >= ITEMS + np.bincount(CLUSTERING.cluster_of).max()
    np.testing.assert_array_equal(jax.jit(partial(in_item_order, CLUSTERING))(laid), table)


@partial(jax.jit, static_argnums=0)
def found(clustering, labels, inputs):
    """What is touched, the item of each place (and I), and the place of each item."""
    touched = touched_by(clustering, labels, inputs)
    blocks = touched.blocks(clustering, 4)
    one = jax.vmap(blocks.block)(jnp.arange(ITEMS))
    inside = jnp.arange(blocks.rows)
    live = (jnp.arange(ITEMS) < blocks.total)[:, None] & (inside < one.length[:, None])
    rows, places = (first[:, None] + inside for first in (one.row, one.place))
    order = jnp.zeros(ITEMS, int).at[row_of(clustering, jnp.arange(ITEMS))].set(jnp.arange(ITEMS))
    items = (
        jnp.full(ITEMS + 3, ITEMS)
        .at[jnp.where(live, places, ITEMS + 3)]
        .set(order[rows], mode="drop")
    )
    beside = touched.upto[-1] + jnp.arange(touched.inputs.shape[0])
    items = items.at[beside].set(touched.inputs, mode="drop")
    # No row stands in two blocks.
    counts = jnp.zeros(ITEMS, int).at[jnp.where(live, rows, ITEMS)].add(1, mode="drop")
    counts = jnp.max(counts)
    return touched, items, touched.places_of(clustering, jnp.arange(-2, ITEMS + 2)), counts


def test_places_without_inputs():
    """As of a batch of words."""
    empty = np.zeros(0, np.int32)
    touched, items, _, _ = found(CLUSTERING, np.array([1], np.int32), empty)
    members = np.flatnonzero(CLUSTERING.cluster_of == CLUSTERING.cluster_of[1])
    assert int(touched.taken) == len(members)
    assert np.asarray(items)[: len(members)].tolist() == members.tolist()


@settings(max_examples=25)
@given(IDS, IDS)
def test_places(labels, inputs):
    """The members of the labels' clusters and the inputs, by NumPy's sets."""
    clustering = CLUSTERING
    labels, inputs = (
        np.array([*ids, *[-1] * (LONGEST - len(ids))], np.int32) for ids in (labels, inputs)
    )
    known = labels[(labels >= 0) & (labels < ITEMS)]
    members = np.flatnonzero(
        np.isin(clustering.cluster_of, np.asarray(clustering.cluster_of)[known])
    )
    wanted = set(members) | set(inputs[(inputs >= 0) & (inputs < ITEMS)].tolist())
    touched, items, own, most = found(clustering, labels, inputs)
    assert int(most) <= 1
    assert int(touched.taken) == len(wanted) <= places_for(clustering, len(labels), len(inputs))
    items, own = np.asarray(items), np.asarray(own)
    assert set(items[: len(wanted)].tolist()) == wanted
    assert (items[len(wanted) :] == ITEMS).all()
    assert (own[:2] == NOWHERE).all() and (own[-2:] == NOWHERE).all()
    for item, place in enumerate(own[2:-2]):
        assert place == (items.tolist().index(item) if item in wanted else NOWHERE)
    starts = np.asarray(touched.starts())
    for cluster in range(CLUSTERS):
        mine = np.flatnonzero(np.asarray(clustering.cluster_of) == cluster)
        visited = bool(np.isin(mine, members).any())
        assert (
            (starts[cluster] == items.tolist().index(mine[0]))
            if visited
            else (starts[cluster] == NOWHERE)
        )
