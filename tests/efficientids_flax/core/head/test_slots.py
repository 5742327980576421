"""Every item has one slot, in a column of its cluster."""

import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.slots import slots_of, table_of

SIZES = [1, 2, 40, 30, 17, 300]
CLUSTERS = ClusteringInfo.from_assignments(
    np.random.default_rng(1).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
)
ITEMS = sum(SIZES)


@pytest.mark.parametrize("clustering", [CLUSTERS, None])
def test_every_item_has_one_slot(clustering):
    found = slots_of(clustering, ITEMS)
    np.testing.assert_array_equal(found.ids.reshape(-1)[found.places], np.arange(ITEMS))
    assert (found.ids >= 0).sum() == ITEMS
    of_slots = np.broadcast_to(found.clusters, found.ids.shape).reshape(-1)
    wanted = 0 if clustering is None else clustering.cluster_of
    assert (of_slots[found.places] == wanted).all()


def test_a_slot_without_an_item_has_one_of_its_cluster():
    found = slots_of(CLUSTERS, ITEMS)
    table = table_of(jnp.arange(float(ITEMS))[:, None], found)
    filled = np.asarray(table).astype(int).reshape(-1)
    of_slots = np.broadcast_to(found.clusters, found.ids.shape).reshape(-1)
    np.testing.assert_array_equal(np.asarray(CLUSTERS.cluster_of)[filled], of_slots)
