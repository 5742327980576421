"""Each row that a batch touches has one place, and nothing else has one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.touched import NOWHERE, places_for, touched_by

ITEMS, CLUSTERS = 23, 6
LONGEST = 5
IDS = st.lists(st.integers(-2, ITEMS + 1), max_size=LONGEST)
CLUSTERING = ClusteringInfo.from_assignments(
    np.random.default_rng(0).permutation([0, 1, 2, 3, 4, 5] + [1] * 3 + [3] * 6 + [5] * 8)
)


@partial(jax.jit, static_argnums=0)
def found(clustering, labels, inputs):
    """What is touched, the item of each place, and the place of each item."""
    touched = touched_by(clustering, labels, inputs)
    items = touched.items_at(clustering, jnp.arange(ITEMS + 3))
    return touched, items, touched.places_of(clustering, jnp.arange(-2, ITEMS + 2))


def test_places_without_inputs():
    """As of a batch of words."""
    empty = np.zeros(0, np.int32)
    touched, items, _ = found(CLUSTERING, np.array([1], np.int32), empty)
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
    touched, items, own = found(clustering, labels, inputs)
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
