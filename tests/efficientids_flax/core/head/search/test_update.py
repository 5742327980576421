"""An index whose items change answers as one that is built of what is left."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.search import (
    add_items,
    build_index,
    item_vectors,
    remove_items,
    score,
    search,
)

ITEMS, NEW, CLUSTERS, WIDTH = 90, 12, 3, 4
KINDS = ("scores", "corrected", "log_probs")
RNG = np.random.default_rng(0)
# Of the last cluster all items are removed.
CLUSTER_OF = np.concatenate([[2, 2], RNG.integers(0, 2, ITEMS + NEW - 2)])
VECTORS = RNG.normal(size=(ITEMS + NEW, WIDTH)).astype(np.float32)
CLUSTERS_OF_TABLE = RNG.normal(size=(CLUSTERS, WIDTH)).astype(np.float32)
QUERY = RNG.normal(size=(2, WIDTH)).astype(np.float32)
REMOVED = np.array([0, 1, 5, 17, 44])
K = ITEMS - len(REMOVED)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """What XLA compiles meanwhile."""
    counted: list[str] = []

    def count(event: str, duration: float, **_: Any) -> None:
        del duration
        if event == "/jax/core/compile/backend_compile_duration":
            counted.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield counted
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


@jax.jit
def answers(index: Any) -> Any:
    """Of each kind, all items of two queries."""
    return [search(index, QUERY, K, kind=kind) for kind in KINDS]


def built(count: int, **room: int) -> Any:
    clustering = ClusteringInfo.from_assignments(CLUSTER_OF[:count])
    return build_index(VECTORS[:count], CLUSTERS_OF_TABLE, clustering, **room)


def by_hand(kept: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, scores) of each kind, float64."""
    logits = np.asarray(QUERY, float) @ VECTORS.T.astype(float)
    first = np.asarray(QUERY, float) @ CLUSTERS_OF_TABLE.T.astype(float)
    there = np.isin(np.arange(len(VECTORS)), kept)
    lse = np.stack([
        np.log(np.exp(logits[:, there & (k == CLUSTER_OF)]).sum(1) + 1e-300)
        for k in range(CLUSTERS)
    ], 1)  # fmt: skip
    chances = first - np.log(np.exp(first).sum(1, keepdims=True))
    found = []
    for add in (first, first - lse, chances - lse):
        scores = np.where(there, logits + add[:, CLUSTER_OF], -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        found.append((order, np.take_along_axis(scores, order, 1)))
    return found


def check(index: Any, kept: np.ndarray) -> None:
    for found, (ids, scores) in zip(answers(index), by_hand(kept), strict=True):
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-5, atol=1e-5)
    # What bounds a search is that of the members there are.
    centres, radii = np.asarray(index.centres), np.asarray(index.radii)
    for cluster in range(CLUSTERS):
        own = VECTORS[kept[CLUSTER_OF[kept] == cluster]]
        if len(own):
            centre = own.mean(axis=0)
            np.testing.assert_allclose(centres[cluster], centre, atol=1e-5)
            far = np.linalg.norm(own - centre, axis=1).max()
            np.testing.assert_allclose(radii[cluster], far, rtol=1e-5)


def test_it_answers_as_one_built_anew_and_compiles_nothing():
    """Removed, added, moved and removed again; of two searches and changes, one is compiled."""
    index = built(ITEMS, spare=NEW, new_items=NEW)
    index = remove_items(index, REMOVED)
    kept = np.setdiff1d(np.arange(ITEMS), REMOVED)
    check(index, kept)
    new = np.arange(ITEMS, ITEMS + NEW)
    # In one cluster first, and with other vectors: the second time each is there already.
    index = add_items(index, new, -VECTORS[new], np.zeros(NEW, int))
    with compilations() as counted:
        index = add_items(index, new[:9], VECTORS[new[:9]], CLUSTER_OF[new[:9]])
        index = add_items(index, new[3:], VECTORS[new[3:]], CLUSTER_OF[new[3:]])
        index = remove_items(index, new[8:10])
        index = remove_items(index, kept[:1])
        answers(index)
    assert not counted
    left = np.setdiff1d(np.concatenate([kept[1:], new]), new[8:10])
    check(index, left)
    scores = jax.jit(score)(index, QUERY, np.array([[kept[0], left[0], 999]] * 2))
    assert np.isneginf(np.asarray(scores)).tolist() == [[True, False, True]] * 2
    with pytest.raises(ValueError, match="item_vectors: 8 of 102 items are not in the index"):
        item_vectors(index)


def test_what_does_not_fit_is_told_and_changes_nothing():
    """A full cluster with how to grow it; the index is still there."""
    index = built(ITEMS, new_items=NEW)
    free = int(index.order.tiles[1]) * index.rows.shape[1] - int(index.order.counts[1])
    ids = np.arange(ITEMS, ITEMS + free + 1)
    vectors = VECTORS[: len(ids)]
    with pytest.raises(ValueError, match=r"cluster 1: is full.*build_index\(\.\.\., spare=N\)"):
        add_items(index, ids, vectors, np.ones(len(ids), int))
    with pytest.raises(ValueError, match=r"ids: found 102.*new_items=N") as caught:
        add_items(index, [102, 102], np.zeros((1, 2)), [0, CLUSTERS])
    for part in ("twice", "clusters: expected 2", "vectors: found"):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="remove_items"):
        remove_items(index, [-1])
    # What int32 would make other items of.
    with pytest.raises(ValueError, match=rf"ids: found {2**32 + 1}, expected in"):
        remove_items(index, np.asarray([2**32 + 1]))
    with pytest.raises(ValueError, match=r"ids: found \[1\] of float.., expected integers"):
        remove_items(index, np.asarray([1.7]))
    with pytest.raises(ValueError, match=r"clusters: found \[1\] of float.., expected integers"):
        add_items(index, [ITEMS], VECTORS[:1], np.asarray([0.9]))
    for wrong, told in (
        (np.nan, "nan at"),
        (1e39, r"1e\+39 at"),
        (1j, "complex"),
        ("1", "numbers"),
    ):
        with pytest.raises(ValueError, match=f"vectors: found .*{told}"):
            add_items(index, [ITEMS], np.full((1, WIDTH), wrong), [0])
    assert int(index.order.counts.sum()) == ITEMS


def test_more_are_asked_for_than_there_are_places():
    clustering = ClusteringInfo.from_assignments(np.arange(16) % 2)
    index = build_index(VECTORS[:16], CLUSTERS_OF_TABLE[:2], clustering, new_items=40)
    for clusters in (None, 2):
        found = jax.jit(partial(search, k=50, clusters=clusters))(index, QUERY)
        assert found.ids.shape == found.scores.shape == (2, 50)
        ids, scores = np.asarray(found.ids), np.asarray(found.scores)
        np.testing.assert_array_equal(np.sort(ids[:, :16]), [np.arange(16)] * 2)
        np.testing.assert_array_equal(ids[:, 16:], -1)
        np.testing.assert_array_equal(scores[:, 16:], -np.inf)
