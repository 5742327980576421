"""A search that leaves clusters out: its bounds hold, and it finds what a pass finds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.search import bounded, build_index, search
from efficientids_flax.core.head.search.filters import make_filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import scored
from efficientids_flax.core.head.search.scan import cluster_offsets, scan, tiles_of

ITEMS, CLUSTERS, WIDTH = 600, 20, 8
SIZES = 1, 6  # seeds of the sizes of clusters; both give 84 tiles, for which all is compiled once
KINDS = ["scores", "corrected", "log_probs"]


def problem(seed: int, noise: float, grid: bool = False) -> tuple[SearchIndex, np.ndarray]:
    """Items around the centres of their clusters; an index, and a query [1, W].

    Sizes of clusters are drawn by one of `SIZES`.
    """
    drawn = np.random.default_rng(SIZES[seed % 2]).integers(0, CLUSTERS, ITEMS - CLUSTERS)
    cluster_of = np.concatenate([np.arange(CLUSTERS), drawn])
    rng = np.random.default_rng([seed, 1])
    clustering = ClusteringInfo.from_assignments(rng.permutation(cluster_of))
    centres = rng.normal(size=(CLUSTERS, WIDTH))
    items = centres[clustering.cluster_of] + noise * rng.normal(size=(ITEMS, WIDTH))
    query = 2 * rng.normal(size=(1, WIDTH))
    if grid:
        items, query = np.round(items), np.round(query)
    return (
        build_index(items.astype(np.float32), centres.astype(np.float32), clustering),
        query.astype(np.float32),
    )


@jax.jit
def bounds_and_scores(index: SearchIndex, query: jax.Array) -> list[Any]:
    """Of each kind, with a cap and without: the bounds, and each cluster's best score."""
    found = []
    for kind in KINDS:
        for cap in (None, 1.5):
            how = scored(index, query, kind, cap, None)  # pyright: ignore[reportArgumentType]
            tiles = tiles_of(index, query, how, make_filter(index, None, None))
            clusters = index.order.clusters
            scores = how.scores(tiles.best.T, cluster_offsets(index, how, tiles).at(clusters))
            best = jax.ops.segment_max(scores.T, clusters, CLUSTERS).T
            found.append((bounded.upper_bounds(index, query, how), best))
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9999), st.sampled_from([0.0, 0.01, 0.3, 1.0, 10.0]))
def test_no_score_is_above_its_bound(seed: int, noise: float):
    for bounds, best in bounds_and_scores(*problem(seed, noise)):
        assert np.all(np.asarray(bounds) >= np.asarray(best))


def test_a_small_product_of_large_vectors_is_below_its_bound():
    """Each item is its cluster's centre; products in another order differ by their roundings."""
    rng = np.random.default_rng(0)
    query, rows = rng.normal(size=(1, 67)), rng.normal(size=(200, 67))
    rows -= rows @ query.T / (query @ query.T) * query
    items, query = (1e5 * rows).astype(np.float32), query.astype(np.float32)
    clustering = ClusteringInfo.from_assignments(np.arange(200))

    @jax.jit
    def bounds(items: jax.Array, query: jax.Array) -> jax.Array:
        index = build_index(items, jnp.zeros_like(items), clustering)
        how = scored(index, query, "scores", None, None)
        return bounded.upper_bounds(index, query, how)[0]

    backwards = np.cumsum((query * items)[:, ::-1], axis=1)[:, -1]
    assert np.all(np.asarray(bounds(items, query)) >= backwards)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cap", [None, 3.0])
def test_it_finds_what_a_pass_finds(monkeypatch: pytest.MonkeyPatch, kind: Any, cap: float | None):
    # All clusters are left to the bounds, a few tiles a step.
    monkeypatch.setattr(bounded, "WORTH", 2.0)
    monkeypatch.setattr(bounded, "STEP_BYTES", 3 * 4 * 8 * WIDTH)
    rng = np.random.default_rng(1)
    exclude = jnp.asarray(rng.integers(0, ITEMS, (1, 40)))
    allowed = jnp.asarray(rng.random(ITEMS) < 0.8)

    @jax.jit
    def both(index: SearchIndex, query: jax.Array) -> Any:
        how = scored(index, query, kind, cap, None)
        filters = make_filter(index, exclude, allowed)
        return bounded.bounded(index, query, how, filters, 7), scan(index, query, how, filters, 7)

    ended = 0
    for seed in range(12):
        (done, (ids, scores)), (want_ids, want) = both(*problem(seed, [0.05, 0.3, 2.0][seed % 3]))
        ended += bool(done)
        if done:
            np.testing.assert_array_equal(ids, want_ids)
            np.testing.assert_allclose(scores, want, rtol=2e-6, atol=2e-6)  # sums in another order
    assert ended >= 8  # capped scores tie now and then, which is left to a pass


def test_ties_are_left_to_a_pass(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounded, "FEWEST_TILES", 0)
    found = jax.jit(search, static_argnames="k")
    for seed in range(6):
        index, query = problem(seed, 0.4, grid=True)
        items = np.zeros((ITEMS, WIDTH))
        there = np.asarray(index.order.ids) >= 0
        items[np.asarray(index.order.ids)[there]] = np.asarray(index.rows)[there]
        items += np.asarray(index.clusters)[np.asarray(index.order.clusters).repeat(8)][
            np.asarray(index.order.places)
        ]
        scores = items @ np.asarray(query[0], float)
        ids = np.asarray(found(index, query, 5).ids)[0]
        np.testing.assert_allclose(scores[ids], np.sort(scores)[::-1][:5], rtol=1e-5)


def test_it_looks_at_few_tiles_where_clusters_are_far_apart():
    """Counted by what a step gathers: the query's own cluster, and little more."""
    index, _ = problem(0, 0.01)
    query = 5 * np.asarray(index.centres)[3:4]

    @jax.jit
    def bounds_and_best(index: SearchIndex, query: jax.Array) -> tuple[jax.Array, jax.Array]:
        how = scored(index, query, "scores", None, None)
        return bounded.upper_bounds(index, query, how)[0], search(index, query, 1).scores[0, 0]

    bounds, best = bounds_and_best(index, query)
    assert np.sum(np.asarray(bounds) >= float(best)) <= 2


@pytest.mark.parametrize(("asked", "k", "wanted"), [(1, 10, True), (2, 10, False), (1, 400, False)])
def test_where_it_is_tried(asked: int, k: int, wanted: bool):
    rows = jax.ShapeDtypeStruct((5000, 8, 4), jnp.float32)
    index = SearchIndex(rows, None, rows, rows, rows)  # pyright: ignore[reportArgumentType]
    assert bounded.fits(index, asked, k) is wanted
    assert not bounded.fits(index._replace(clusters=None), asked, k)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_row_that_is_not_finite_hides_no_other(monkeypatch: pytest.MonkeyPatch, wrong: float):
    monkeypatch.setattr(bounded, "WORTH", 2.0)
    monkeypatch.setattr(bounded, "STEP_BYTES", 3 * 4 * 8 * WIDTH)
    monkeypatch.setattr(bounded, "FEWEST_TILES", 1)
    cluster_of = np.arange(ITEMS) % CLUSTERS
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, WIDTH))
    items = centres[cluster_of] + 0.1 * np.random.default_rng(1).normal(size=(ITEMS, WIDTH))
    query = centres[3]
    best = np.argsort(-(items @ query + (centres @ query)[cluster_of]))
    broken = next(item for item in range(ITEMS) if cluster_of[item] == cluster_of[best[0]]
                  and item not in best[:5])  # fmt: skip
    items[broken] = wrong * np.sign(query)
    index = build_index(
        items.astype(np.float32), centres.astype(np.float32),
        ClusteringInfo.from_assignments(cluster_of),
    )  # fmt: skip
    found = jax.jit(search, static_argnums=2)(index, query[None].astype(np.float32), 5)
    first = [broken] if wrong == np.inf else []
    np.testing.assert_array_equal(np.asarray(found.ids)[0], [*first, *best[:5]][:5])
