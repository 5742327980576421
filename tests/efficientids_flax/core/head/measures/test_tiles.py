"""Every item has one slot, in a column of its cluster, all of which are in one tile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.measures import table_of, tiles, tiles_of
from efficientids_flax.core.head.measures.tiles import NO_ITEM, rows_of

SIZES = [1, 2, 40, 30, 17, 300]
CLUSTERS = ClusteringInfo.from_assignments(
    np.random.default_rng(1).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
)
ITEMS = sum(SIZES)


@pytest.fixture(params=[(8, 8), (1 << 9, 1 << 9)], ids=["small", "large"], autouse=True)
def _sizes(request, monkeypatch):
    monkeypatch.setattr(tiles, "SLOTS", request.param[0])
    monkeypatch.setattr(tiles, "WHOLE", request.param[1])


@pytest.mark.parametrize("clustering", [CLUSTERS, None])
def test_every_item_has_one_slot(clustering):
    found = tiles_of(clustering, ITEMS)
    np.testing.assert_array_equal(found.ids.reshape(-1)[found.places], np.arange(ITEMS))
    assert (found.ids >= 0).sum() == ITEMS
    of_slots = np.repeat(found.clusters.reshape(-1), found.ids.shape[2])
    wanted = 0 if clustering is None else clustering.cluster_of
    assert (of_slots[found.places] == wanted).all()
    assert ((found.ids >= 0).any(axis=2) == (found.clusters >= 0)).all()


@pytest.mark.parametrize("clustering", [CLUSTERS, None])
def test_a_cluster_is_in_one_tile_side_by_side(clustering):
    found = tiles_of(clustering, ITEMS)
    for cluster in range(found.num_clusters):
        tile, column = np.nonzero(found.clusters == cluster)
        assert not found.whole or len(set(tile)) == 1
        assert (np.diff(column) == 1).all() or not found.whole


def test_many_clusters_fill_their_tiles():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 60, 300)
    tables = ClusteringInfo.from_assignments(np.repeat(np.arange(300), sizes))
    found = tiles_of(tables, int(sizes.sum()))
    assert (found.clusters >= 0).mean() > 0.9
    assert (found.ids >= 0).mean() > 0.7  # a column is of one cluster


def test_a_slot_without_an_item_never_counts(monkeypatch):
    found = tiles_of(CLUSTERS, ITEMS)
    items = np.arange(ITEMS, dtype=np.float32)[:, None]

    @jax.jit
    def laid(items):
        return table_of(items, found), rows_of(items, found, jnp.int32(0), None)

    table, one = jax.device_get(laid(items))
    assert table is not None
    np.testing.assert_array_equal(table[:, 1] == NO_ITEM, (found.ids < 0).reshape(len(table), -1))
    filled = found.ids.reshape(len(table), -1) >= 0
    np.testing.assert_array_equal(table[:, 0][filled], found.ids[found.ids >= 0])
    np.testing.assert_array_equal(one, table[0])
    monkeypatch.setattr(tiles, "COPIED", 10)
    again = jax.eval_shape(lambda items: table_of(items, found), items)
    assert (again is None) == (len(found.ids) > 1)
