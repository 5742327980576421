"""Exact top-k against NumPy's stable sort, whatever the ties, filters and chunks."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import logsumexp

from efficientids_flax.core.head.retrieval import Kind, cluster_normalisers, retrieve
from efficientids_flax.core.head.top import top_items

# Jitted, so that examples of one shape compile once.
RETRIEVE = jax.jit(retrieve, static_argnames=("k", "kind", "soft_cap", "chunk_size"))
TOP_ITEMS = jax.jit(top_items, static_argnames="k")
VALUES = st.sampled_from([-math.inf, math.nan, -1.0, -0.0, 0.0, 1.0, 1.5])


def stable_top(scores: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k best of [B, I], lower ids first among equals, -1 for what scores -inf or NaN."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    return np.where(np.isneginf(np.take_along_axis(scores, order, axis=-1)), -1, order)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_top_items_is_a_stable_sort(data: st.DataObject):
    rows, count = data.draw(st.sampled_from([(1, 1), (2, 6), (3, 9)]))
    scores = data.draw(arrays.arrays(np.float32, (rows, count), elements=VALUES))
    k = data.draw(st.sampled_from([1, count]))
    exclude = data.draw(arrays.arrays(np.int32, (rows, 3), elements=st.integers(-2, count + 1)))
    allowed = data.draw(arrays.arrays(bool, data.draw(st.sampled_from([(count,), (rows, count)]))))
    left = np.where(allowed, scores, -np.inf)
    for row, ids in enumerate(exclude):
        left[row, [i for i in ids if 0 <= i < count]] = -np.inf
    wanted = stable_top(left, k)
    found = TOP_ITEMS(scores, k, exclude=exclude, allowed=allowed)
    np.testing.assert_array_equal(found.ids, wanted)
    values = np.take_along_axis(left, np.maximum(wanted, 0), axis=-1)
    np.testing.assert_array_equal(found.scores, np.where(wanted < 0, -np.inf, values))


def test_leading_axes_stay():
    scores = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    found = TOP_ITEMS(scores, 2, exclude=np.full((2, 3, 1), 3))
    assert found.ids.shape == found.scores.shape == (2, 3, 2)
    np.testing.assert_array_equal(found.ids, np.broadcast_to([2, 1], (2, 3, 2)))


SIZES = (  # I, k, C: one chunk, chunks that divide I or do not, fewer items in a chunk than k
    (1, 1, 1), (5, 5, 1), (12, 3, 4), (23, 4, 7), (23, 23, 5), (23, 2, 22), (7, 3, 40),
)  # fmt: skip


@st.composite
def heads(draw: st.DrawFn) -> dict[str, Any]:
    """Small whole numbers: products are exact in float32, and ties are many."""
    rows, clusters = 3, 4
    count, k, chunk = draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {
        "query": rng.integers(-2, 3, (rows, 3)).astype(np.float32),
        "items": rng.integers(-2, 3, (count, 3)).astype(np.float32),
        "clusters": rng.integers(-2, 3, (clusters, 3)).astype(np.float32),
        "cluster_of": rng.integers(0, clusters, count).astype(np.int32),
        "k": k,
        "chunk_size": chunk,
    }


@given(heads(), st.data())
@settings(max_examples=60, deadline=None)
def test_chunks_find_what_a_sort_of_all_finds(head: dict[str, Any], data: st.DataObject):
    query, items, place = head["query"], head["items"], head["cluster_of"]
    count = len(items)
    exclude = data.draw(arrays.arrays(np.int32, (len(query), 2), elements=st.integers(-1, count)))
    allowed = data.draw(arrays.arrays(bool, (count,)))
    scores = query @ items.T + (query @ head["clusters"].T)[:, place]
    scores = np.where(allowed, scores, -np.inf)
    for row, ids in enumerate(exclude):
        scores[row, [i for i in ids if 0 <= i < count]] = -np.inf
    found = run(head, exclude=exclude, allowed=allowed)
    wanted = stable_top(scores, head["k"])
    np.testing.assert_array_equal(found.ids, wanted)
    values = np.take_along_axis(scores, np.maximum(wanted, 0), axis=-1)
    np.testing.assert_array_equal(found.scores, np.where(wanted < 0, -np.inf, values))


def run(head: dict[str, Any], **more: Any):
    """`retrieve`, with what a test changes."""
    return RETRIEVE(**head | more)


def case(seed: int = 0, count: int = 37, clusters: int = 5, scale: float = 1.0) -> dict[str, Any]:
    """Random tables; every cluster has members."""
    rng = np.random.default_rng(seed)
    place = np.concatenate([np.arange(clusters), rng.integers(0, clusters, count - clusters)])
    return {
        "query": scale * rng.normal(size=(4, 6)).astype(np.float32),
        "items": rng.normal(size=(count, 6)).astype(np.float32),
        "clusters": rng.normal(size=(clusters, 6)).astype(np.float32),
        "cluster_of": place.astype(np.int32),
    }


def cap(x: np.ndarray, limit: float | None) -> np.ndarray:
    return x if limit is None else limit * np.tanh(x / limit)


def in_float64(
    head: dict[str, Any], kind: Kind, limit: float | None, words: np.ndarray | None
) -> np.ndarray:
    """Scores [B, I] by the definitions, dense."""
    query, items, clusters = (
        head[name].astype(np.float64) for name in ("query", "items", "clusters")
    )
    place = head["cluster_of"]
    own, group = query @ items.T, query @ clusters.T
    logits = cap(own, limit) if kind == "log_probs" else own
    normaliser = np.stack(
        [logsumexp(logits[:, place == k], axis=1) for k in range(len(clusters))], axis=1
    )
    if kind != "log_probs":
        sums = own + group[:, place]
        return cap(sums if kind == "scores" else sums - normaliser[:, place], limit)
    first = group if words is None else np.concatenate([words, group], axis=1)
    first = cap(first, limit)
    first = (first - logsumexp(first, axis=1, keepdims=True))[:, -len(clusters) :]
    return logits - normaliser[:, place] + first[:, place]


@pytest.mark.parametrize("limit", [None, 3.0])
@pytest.mark.parametrize("kind", ["scores", "corrected", "log_probs"])
@pytest.mark.parametrize("chunk", [1, 7, 37, None])
def test_each_kind_by_its_definition(kind: Kind, limit: float | None, chunk: int | None):
    head = case()
    words = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    given = {"word_logits": words} if kind == "log_probs" else {}
    scores = in_float64(head, kind, limit, words)
    found = run(head, k=37, kind=kind, soft_cap=limit, chunk_size=chunk, **given)
    np.testing.assert_array_equal(found.ids, np.argsort(-scores, axis=1, kind="stable"))
    # Some roundings of float32 at a magnitude of 10.
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("limit", [None, 3.0])
@pytest.mark.parametrize("hierarchical", [True, False])
@pytest.mark.parametrize("num_words", [0, 8])
def test_probabilities_sum_to_one(limit: float | None, hierarchical: bool, num_words: int):
    """Over items and words, of the first softmax's (or the only one's) denominator."""
    head = case(count=50)
    words = np.random.default_rng(1).normal(size=(4, num_words)).astype(np.float32)
    if not hierarchical:
        head |= {"clusters": None, "cluster_of": None}
    given = {"word_logits": words} if num_words else {}
    found = run(head, k=50, kind="log_probs", soft_cap=limit, chunk_size=16, **given)
    of_items = np.exp(np.asarray(found.scores, np.float64)).sum(axis=1)
    table = case(count=50)["clusters" if hierarchical else "items"]
    logits = cap(np.concatenate([words, head["query"] @ table.T], axis=1).astype(float), limit)
    of_words = np.exp(logits[:, :num_words] - logsumexp(logits, axis=1, keepdims=True)).sum(axis=1)
    np.testing.assert_allclose(of_items + of_words, 1.0, rtol=1e-5)


def test_corrected_scores_are_log_probabilities_up_to_a_constant():
    head = case()
    corrected = run(head, k=37, kind="corrected")
    probable = run(head, k=37, kind="log_probs", word_logits=np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(corrected.ids, probable.ids)
    apart = np.asarray(corrected.scores) - np.asarray(probable.scores)
    np.testing.assert_allclose(apart, np.broadcast_to(apart[:, :1], apart.shape), atol=1e-5)


def test_large_logits_stay_finite():
    """The original's plain exp overflows above 88."""
    head = case(scale=1000.0)
    for kind in ("corrected", "log_probs"):
        scores = in_float64(head, kind, None, None)
        found = run(head, k=5, kind=kind, chunk_size=8)
        np.testing.assert_array_equal(found.ids, np.argsort(-scores, axis=1, kind="stable")[:, :5])
        # Logits of some thousands: one rounding is 2e-4.
        np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :5], atol=2e-3)


def test_normalisers_over_chunks_that_lack_a_cluster():
    head = case()
    order = np.argsort(head["cluster_of"], kind="stable")  # a chunk then holds one or two clusters
    items, place = head["items"][order], head["cluster_of"][order]
    normalisers = jax.jit(partial(cluster_normalisers, num_clusters=5, chunk_size=4))
    highest, rest = map(np.asarray, normalisers(head["query"], items, place))
    logits = head["query"].astype(float) @ items.T
    wanted = np.stack([logsumexp(logits[:, place == k], axis=1) for k in range(5)], axis=1)
    np.testing.assert_allclose(highest + rest, wanted, rtol=2e-6)


def test_no_array_holds_the_whole_catalogue():
    """Scores of all items at once would be [4, 4096]; chunks are 64 wide."""
    head = case(count=4096)

    def search(query: jax.Array) -> Any:
        return run(head | {"query": query}, k=5, kind="corrected", chunk_size=64)

    text = str(jax.make_jaxpr(search)(jnp.asarray(head["query"])))
    assert "4,4096]" not in text
    assert "4096,4]" not in text
    assert "4,64]" in text


def test_half_precision_tables_are_scored_in_float32():
    head = {name: value for name, value in case().items() if name == "cluster_of"}
    half = {name: case()[name].astype(jnp.bfloat16) for name in ("query", "items", "clusters")}
    wide = {name: np.asarray(value, np.float32) for name, value in half.items()}
    found = run(head | half, k=10)
    wanted = run(head | wide, k=10)
    np.testing.assert_array_equal(found.ids, wanted.ids)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-6)


@pytest.mark.parametrize("k", [0, -3, 38])
def test_a_k_that_cannot_be(k: int):
    with pytest.raises(ValueError, match=rf"k: expected in \[1, 37\].*found {k}"):
        run(case(), k=k)
    with pytest.raises(ValueError, match=rf"k: expected in \[1, 37\].*found {k}"):
        top_items(jnp.zeros((2, 37)), k)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"items": np.zeros((37, 5), np.float32)}, "items: width 5, the query's is 6"),
        ({"clusters": np.zeros((5, 3), np.float32)}, "clusters: width 3, the query's is 6"),
        ({"cluster_of": None}, "clusters and cluster_of: give both, or neither"),
        ({"cluster_of": np.zeros(36, np.int32)}, r"cluster_of: found \[36\], expected \[37\]"),
        ({"exclude": np.zeros((3, 1), np.int32)}, r"exclude: found \[3, 1\], expected \[4, 'X'\]"),
        ({"allowed": np.ones(5, bool)}, r"allowed: found \[5\], expected \[37\] or \[4, 37\]"),
        ({"chunk_size": 0}, "chunk_size: expected above 0, found 0"),
        ({"kind": "logprobs"}, "kind: expected one of scores, corrected, log_probs, found 'logp"),
        ({"word_logits": np.zeros((1, 5), np.float32)}, r"word_logits: found \[1, 5\], expected"),
    ],
)
def test_tables_that_do_not_fit(wrong: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        run(case() | wrong, k=3)
