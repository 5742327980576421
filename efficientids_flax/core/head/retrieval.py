"""Exact top-k items of a query, without holding the scores of the whole catalogue.

A scan over chunks of the item table keeps the k best so far. Ties go to the lower id, as in the
original's top-k, for any chunk size. Letters: B queries, W width of query and tables, I items,
K clusters, C items of a chunk, X excluded items, V words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap as capped
from efficientids_flax.core.head.hierarchical import first_pass_logits
from efficientids_flax.core.head.top import NONE, TopItems, best_of, check_filters, filtered, named
from efficientids_flax.moved import left_names

SCORES_AT_ONCE = 1 << 19  # B x C: 2 MiB of float32 stay in a core's cache (2x faster than 64 MiB)
SMALLEST_CHUNK = 1024

Kind = Literal["scores", "corrected", "log_probs"]
Carry = TypeVar("Carry")


def retrieve(
    query: jax.Array,
    items: jax.Array,
    k: int,
    *,
    clusters: jax.Array | None = None,
    cluster_of: jax.Array | None = None,
    kind: Kind = "scores",
    soft_cap: float | None = None,
    word_logits: jax.Array | None = None,
    exclude: jax.Array | None = None,
    allowed: jax.Array | None = None,
    chunk_size: int | None = None,
) -> TopItems:
    """The k best items of each query, from the head's tables.

    Products are float32 in full precision on every device. Sections 2 and 3 of arXiv 2509.03746.

    Args:
        query: [B, W].
        items: [I, W], at the query's width.
        k: number of items to return.
        clusters, cluster_of: [K, W] and int [I]; None under full softmax.
        kind: 'scores': the original's, `q . (item + its cluster)`; 'corrected': these minus the
            logsumexp of the cluster's items, which without a cap is the log-probability up to one
            constant for each query; 'log_probs': the log-probability that the loss uses.
        soft_cap: cap * tanh(x / cap). The first two kinds cap the final score (as the original's
            evaluation does), the third caps the logits of each softmax (as its loss does).
        word_logits: [B, V] before the soft cap; 'log_probs' includes them in the denominator of
            the first softmax. None for a model without words.
        exclude: int [B, X], ids to leave out, such as items already seen; ids outside [0, I) have
            no effect.
        allowed: bool [I] or [B, I], items that may be returned.
        chunk_size: C; None: so that B x C is about `SCORES_AT_ONCE`.

    Raises:
        ValueError: k is not in [1, I]; the kind is unknown; shapes do not fit each other.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind: expected one of {', '.join(get_args(Kind))}, found {kind!r}")
    count, rows = items.shape[0], query.shape[0]
    check_filters(query.shape[:1], count, k, exclude, allowed)
    _check_tables(query, items, clusters, cluster_of, chunk_size)
    if word_logits is not None and word_logits.shape[:-1] != (rows,):
        raise ValueError(f"word_logits: found {list(word_logits.shape)}, expected {[rows, 'V']}")
    size = _chunk(rows, count, chunk_size)
    inner = soft_cap if kind == "log_probs" else None
    outer = None if kind == "log_probs" else soft_cap
    offsets = _offsets(query, items, clusters, cluster_of, kind, inner, word_logits, size)

    def merge(best: TopItems, start: jax.Array, ids: jax.Array) -> TopItems:
        scores = capped(_dot(query, jax.lax.dynamic_slice_in_dim(items, start, size)), inner)
        for offset in offsets:
            if cluster_of is None:
                scores = scores + offset
            else:
                place = jax.lax.dynamic_slice_in_dim(cluster_of, start, size)
                scores = scores + offset[:, place]
        scores = filtered(capped(scores, outer), start, exclude, allowed)
        # The last chunk may overlap the one before; masking makes each item count once. Items
        # found earlier come first in the concatenation, so that they win ties.
        scores = jnp.where(ids >= 0, scores, -jnp.inf)
        values, places = best_of(jnp.concatenate([best.scores, scores], axis=-1), k)
        before = jnp.take_along_axis(best.ids, jnp.minimum(places, k - 1), axis=-1)
        found = jnp.where(places < k, before, ids[jnp.maximum(places - k, 0)])
        return named(found, values)

    empty = TopItems(jnp.full((rows, k), NONE, jnp.int32), jnp.full((rows, k), -jnp.inf))
    return _over_chunks(merge, empty, count, size)


def cluster_normalisers(
    query: jax.Array,
    items: jax.Array,
    cluster_of: jax.Array | None,
    num_clusters: int,
    *,
    soft_cap: float | None = None,
    chunk_size: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Logsumexp of each cluster's item logits, stable at any magnitude, chunk by chunk.

    Args:
        query, items: [B, W], [I, W].
        cluster_of: int [I]; None: all items are one cluster.
        num_clusters: K.
        soft_cap: soft cap on the logits.
        chunk_size: C; see `retrieve`.

    Returns:
        (highest logit, logsumexp minus highest), float32 [B, K] each. They are kept apart because
        their sum would round the second away if logits are large.
    """
    count, rows = items.shape[0], query.shape[0]
    size = _chunk(rows, count, chunk_size)
    places = jnp.zeros(count, jnp.int32) if cluster_of is None else cluster_of

    def add(carry: tuple[jax.Array, jax.Array], start: jax.Array, ids: jax.Array) -> Any:
        highest, total = carry
        logits = capped(_dot(query, jax.lax.dynamic_slice_in_dim(items, start, size)), soft_cap)
        logits = jnp.where(ids >= 0, logits, -jnp.inf).T  # [C, B]
        cluster = jax.lax.dynamic_slice_in_dim(places, start, size)
        higher = jnp.maximum(highest, jax.ops.segment_max(logits, cluster, num_clusters))
        shift = jnp.where(jnp.isneginf(higher), 0.0, higher)  # a cluster not met yet
        new = jax.ops.segment_sum(jnp.exp(logits - shift[cluster]), cluster, num_clusters)
        return higher, total * jnp.exp(highest - shift) + new

    zero = jnp.zeros((num_clusters, rows), jnp.float32)
    highest, total = _over_chunks(add, (zero - jnp.inf, zero), count, size)
    return highest.T, jnp.log(total).T


def _offsets(
    query: jax.Array,
    items: jax.Array,
    clusters: jax.Array | None,
    cluster_of: jax.Array | None,
    kind: Kind,
    cap: float | None,
    word_logits: jax.Array | None,
    size: int,
) -> tuple[jax.Array, ...]:
    """Terms to add to the item logits, in order: [B, K] by cluster, [B, 1] under full softmax."""
    if clusters is None and kind != "log_probs":
        return ()
    count = 1 if clusters is None else clusters.shape[0]
    if clusters is not None and kind == "scores":
        return (_dot(query, clusters),)
    highest, rest = cluster_normalisers(
        query, items, cluster_of, count, soft_cap=cap, chunk_size=size
    )
    if clusters is not None and kind == "corrected":
        return -highest, _dot(query, clusters) - rest
    if clusters is not None:
        words = None if word_logits is None else word_logits[:, None]
        with jax.default_matmul_precision("highest"):
            first = first_pass_logits(words, query[:, None], clusters, cap)[:, 0]
        return -highest, jax.nn.log_softmax(first)[:, first.shape[-1] - count :] - rest
    if word_logits is not None:
        words = capped(word_logits.astype(jnp.float32), cap)
        rest = jnp.logaddexp(rest, jax.nn.logsumexp(words, axis=-1, keepdims=True) - highest)
    return -highest, -rest


def _over_chunks(
    step: Callable[[Carry, jax.Array, jax.Array], Carry], carry: Carry, count: int, size: int
) -> Carry:
    """Scan `step(carry, start, ids)` over all chunks; `ids` [C] is -1 for items already seen."""

    def body(carry: Carry, number: jax.Array) -> tuple[Carry, None]:
        start = jnp.minimum(number * size, count - size)
        ids = start + jnp.arange(size, dtype=jnp.int32)
        return step(carry, start, jnp.where(ids >= number * size, ids, NONE)), None

    return jax.lax.scan(body, carry, jnp.arange(-(-count // size), dtype=jnp.int32))[0]


def _dot(query: jax.Array, table: jax.Array) -> jax.Array:
    return jnp.einsum(
        "bw,iw->bi", query, table, precision="highest", preferred_element_type=jnp.float32
    )


def _chunk(rows: int, count: int, asked: int | None) -> int:
    return min(count, asked or max(SCORES_AT_ONCE // max(rows, 1), SMALLEST_CHUNK))


def _check_tables(
    query: jax.Array,
    items: jax.Array,
    clusters: jax.Array | None,
    cluster_of: jax.Array | None,
    chunk_size: int | None,
) -> None:
    width = query.shape[-1]
    for name, table in (("items", items), ("clusters", clusters)):
        if table is not None and table.shape[-1] != width:
            raise ValueError(f"{name}: width {table.shape[-1]}, the query's is {width}")
    if (clusters is None) != (cluster_of is None):
        raise ValueError("clusters and cluster_of: give both, or neither for a full softmax")
    if cluster_of is not None and cluster_of.shape != items.shape[:1]:
        raise ValueError(f"cluster_of: found {list(cluster_of.shape)}, expected {[len(items)]}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size: expected above 0, found {chunk_size}")


__getattr__ = left_names(__name__)
