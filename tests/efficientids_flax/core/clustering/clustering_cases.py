"""Clustering tables for the tests of this directory: one by hand, and any valid ones."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from efficientids_flax.core.clustering.tables import FIELDS, ClusteringInfo

INT32_MIN = np.iinfo(np.int32).min

# Six items: cluster 0 holds 4, 0, 2; cluster 1 holds 5; cluster 2 holds 1, 3.
TABLES = {
    "cluster_of": [0, 2, 0, 2, 0, 1],
    "members": [[4, 0, 2], [5, -1, -1], [1, 3, -1]],
    "slot_of": [1, 0, 2, 1, 0, 0],
}


def tables(**changed) -> dict[str, np.ndarray]:
    return {name: np.array(table) for name, table in {**TABLES, **changed}.items()}


def assert_same(clustering: ClusteringInfo, expected) -> None:
    for name in FIELDS:
        got, want = getattr(clustering, name), expected[name]
        if want is None:
            assert got is None
        else:
            np.testing.assert_array_equal(got, want, err_msg=name, strict=True)


@st.composite
def clusterings(draw) -> dict[str, np.ndarray | None]:
    """Valid tables as producers write them: any order, any negative padding, spare slots."""
    items = draw(st.integers(1, 30))
    clusters = draw(st.integers(1, items))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cluster_of = rng.integers(0, clusters, items)
    cluster_of[:clusters] = np.arange(clusters)
    cluster_of = rng.permutation(cluster_of)
    rows = [rng.permutation(np.flatnonzero(cluster_of == k)) for k in range(clusters)]
    slots = max(map(len, rows)) + draw(st.integers(0, 2))
    members = np.full((clusters, slots), draw(st.sampled_from((-1, -7, INT32_MIN))))
    slot_of = np.zeros(items, int)
    for k, row in enumerate(rows):
        members[k, : len(row)] = row
        slot_of[row] = np.arange(len(row))
    kind = draw(st.sampled_from((None, "float16", "float32", "float64", ml_dtypes.bfloat16)))
    means = None if kind is None else rng.normal(size=(clusters, 3)).astype(kind)
    integer = draw(st.sampled_from(("int32", "int64")))
    return {
        "cluster_of": cluster_of.astype(integer),
        "members": members.astype(integer),
        "slot_of": slot_of.astype(integer),
        "means": means,
    }


def canonical(given_tables) -> dict[str, np.ndarray | None]:
    """What ClusteringInfo keeps of valid tables."""
    means = given_tables["means"]
    if means is not None and means.dtype.itemsize == 2:
        means = means.astype(np.float32)
    return {
        "cluster_of": given_tables["cluster_of"].astype(np.int32),
        "members": np.maximum(given_tables["members"], -1).astype(np.int32),
        "slot_of": given_tables["slot_of"].astype(np.int32),
        "means": means,
    }
