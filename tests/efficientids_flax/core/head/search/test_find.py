"""Exact top-k from an index, against NumPy's stable sort in float64: ties, filters, every kind."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.search import Kind, build_index, search
from efficientids_flax.core.head.search import scan as scan_module

SEARCH = jax.jit(search, static_argnames=("k", "kind", "soft_cap"))
ITEMS, CLUSTERS, WIDTH, ASKED, WORDS = 300, 7, 4, 3, 5


def problem(seed: int, grid: bool = True) -> dict[str, Any]:
    """Tables, queries, filters; on a grid of whole numbers many scores are equal.

    Sizes of clusters are one of two: for each number of tiles all is compiled anew.
    """
    rng, sizes = np.random.default_rng(seed), np.random.default_rng(seed % 2)
    draw = (
        (lambda *shape: rng.integers(-2, 3, shape))
        if grid
        else (lambda *shape: rng.normal(size=shape))
    )
    cluster_of = np.concatenate(
        [
            np.arange(CLUSTERS),
            sizes.choice(CLUSTERS, ITEMS - CLUSTERS, p=sizes.dirichlet(np.ones(CLUSTERS))),
        ]
    )
    return {
        "clustering": ClusteringInfo.from_assignments(rng.permutation(cluster_of)),
        "items": draw(ITEMS, WIDTH).astype(np.float32),
        "clusters": draw(CLUSTERS, WIDTH).astype(np.float32),
        "query": draw(ASKED, WIDTH).astype(np.float32),
        "words": rng.normal(size=(ASKED, WORDS)).astype(np.float32),
        "exclude": rng.integers(-2, ITEMS + 2, (ASKED, 9)),
        "allowed": rng.random((ASKED, ITEMS)) < 0.7,
    }  # fmt: skip


def capped(x: np.ndarray, cap: float | None) -> np.ndarray:
    return x if cap is None else cap * np.tanh(x / cap)


def wanted(given: dict[str, Any], kind: Kind, cap: float | None, words: bool) -> np.ndarray:
    """float64 [B, I], by the definitions."""
    items, clusters, query = (np.asarray(given[n], float) for n in ("items", "clusters", "query"))
    cluster_of = given["clustering"].cluster_of
    logits = capped(query @ items.T, cap if kind == "log_probs" else None)
    lse = np.stack([logsumexp(logits[:, cluster_of == k], axis=1) for k in range(CLUSTERS)], 1)
    first = query @ clusters.T
    if kind == "scores":
        return capped(logits + first[:, cluster_of], cap)
    if kind == "corrected":
        return capped(logits + (first - lse)[:, cluster_of], cap)
    if words:
        first = np.concatenate([np.asarray(given["words"], float), first], 1)
    first = log_softmax(capped(first, cap), axis=1)[:, -CLUSTERS:]
    return logits + (first - lse)[:, cluster_of]


def filtered(scores: np.ndarray, given: dict[str, Any]) -> np.ndarray:
    scores = np.where(given["allowed"], scores, -np.inf)
    for row, ids in enumerate(given["exclude"]):
        scores[row, [i for i in ids if 0 <= i < ITEMS]] = -np.inf
    return scores


def run(given: dict[str, Any], k: int, **more: Any) -> Any:
    index = build_index(given["items"], given["clusters"], given["clustering"])
    return SEARCH(index, given["query"], k, **more)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.sampled_from([1, 10, ITEMS]))
def test_equal_scores_go_by_id(seed: int, k: int):
    given = problem(seed)
    scores = filtered(wanted(given, "scores", None, False), given)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, 1)
    found = run(given, k, exclude=given["exclude"], allowed=given["allowed"])
    np.testing.assert_array_equal(found.scores, values)  # sums of small whole numbers are exact
    np.testing.assert_array_equal(found.ids, np.where(np.isneginf(values), -1, order))


@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("kind", ["scores", "corrected", "log_probs"])
def test_each_kind_by_its_definition(kind: Kind, cap: float | None):
    given = problem(3, grid=False)
    scores = wanted(given, kind, cap, words=True)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :12]
    found = run(given, 12, kind=kind, soft_cap=cap, word_logits=given["words"])
    # Float32 sums of a few hundred exponentials.
    np.testing.assert_allclose(
        found.scores, np.take_along_axis(scores, order, 1), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(found.ids, order)


@pytest.mark.parametrize("kind", ["scores", "log_probs"])
def test_full_softmax(kind: Kind):
    given = problem(4, grid=False)
    query, items, words = (np.asarray(given[n], float) for n in ("query", "items", "words"))
    scores = query @ items.T
    if kind == "log_probs":
        scores = log_softmax(np.concatenate([words, scores], 1), axis=1)[:, WORDS:]
    index = build_index(given["items"], None, None)
    found = SEARCH(index, given["query"], 5, kind=kind, word_logits=given["words"])
    order = np.argsort(-scores, axis=1)[:, :5]
    np.testing.assert_array_equal(found.ids, order)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, 1), rtol=1e-5)


def test_a_few_tiles_at_a_time_find_the_same(monkeypatch: pytest.MonkeyPatch):
    given = problem(5, grid=False)
    index = build_index(given["items"], given["clusters"], given["clustering"])
    whole = SEARCH(index, given["query"], 9, kind="corrected", exclude=given["exclude"])
    monkeypatch.setattr(scan_module, "SCORES_AT_ONCE", 8 * ASKED * 5)
    monkeypatch.setattr(scan_module, "WHOLE", 0)
    monkeypatch.setattr(scan_module, "ROWS_AT_ONCE", 1)
    found = jax.jit(search, static_argnames=("k", "kind"))(
        index, given["query"], 9, kind="corrected", exclude=given["exclude"]
    )
    np.testing.assert_array_equal(found.ids, whole.ids)
    np.testing.assert_allclose(found.scores, whole.scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cap", [None, 5.0])
def test_a_query_that_finds_few_beside_one_with_ties(cap: float | None):
    """Of tiles, too: most are empty, or hold nothing that may be found. No item comes twice."""
    clustering = ClusteringInfo.from_assignments(np.repeat(np.arange(20), 2))
    ones = np.ones((40, WIDTH), np.float32)
    index = build_index(ones, ones[:20], clustering, spare=20)
    allowed = np.array([np.arange(40) < 5, np.arange(40) >= 0])
    found = SEARCH(index, ones[:2], 12, soft_cap=cap, allowed=allowed)
    np.testing.assert_array_equal(found.ids, [[*range(5), *[-1] * 7], range(12)])


def test_no_array_holds_all_scores_of_many_queries():
    items, query = (np.zeros((count, 4), np.float32) for count in (200_000, 64))
    text = SEARCH.lower(build_index(items, None, None), query, 10).as_text()
    assert "64x200000xf32" not in text
    assert "64x6250x32xf32" not in text


def test_values_that_are_no_numbers_are_never_found():
    given = problem(6, grid=False)
    given["items"][5] = np.nan
    found = run(given, ITEMS)
    assert 5 not in np.asarray(found.ids)[0]
    assert np.asarray(found.ids)[0, -1] == -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k: expected in"),
        ({"kind": "best"}, "kind: expected one of"),
        ({"query": np.zeros((2, 9))}, r"query: found \[2, 9\], expected \[B, 4\]"),
        ({"exclude": np.zeros((1, 2), int)}, "exclude: found"),
        ({"word_logits": np.zeros((1, 2))}, "word_logits: found"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], message: str):
    given = problem(0)
    index = build_index(given["items"], given["clusters"], given["clustering"])
    with pytest.raises(ValueError, match=message):
        search(**{"index": index, "query": jnp.asarray(given["query"]), "k": 3, **change})


def test_tables_that_do_not_fit():
    given = problem(0)
    with pytest.raises(ValueError, match="give both"):
        build_index(given["items"], given["clusters"], None)
    with pytest.raises(ValueError, match="items: found 9 rows"):
        build_index(given["items"][:9], given["clusters"], given["clustering"])
