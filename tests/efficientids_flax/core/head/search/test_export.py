"""Vectors for other searches rank as ours does."""

from functools import partial

import jax
import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.search import build_index, item_vectors, search


@pytest.mark.parametrize("clustered", [True, False])
def test_products_with_the_vectors_are_the_scores(clustered: bool):
    rng = np.random.default_rng(0)
    items, clusters, query = (rng.normal(size=(n, 5)).astype(np.float32) for n in (90, 6, 4))
    cluster_of = rng.permutation(np.arange(90) % 6)
    clustering = ClusteringInfo.from_assignments(cluster_of)
    index = (
        build_index(items, clusters, clustering) if clustered else build_index(items, None, None)
    )
    vectors = item_vectors(index)
    np.testing.assert_array_equal(vectors, items + (clusters[cluster_of] if clustered else 0))
    found = jax.jit(partial(search, k=7))(index, query)
    np.testing.assert_array_equal(found.ids, np.argsort(-query @ vectors.T, axis=1)[:, :7])
