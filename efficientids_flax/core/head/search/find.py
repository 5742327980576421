"""The public search: branch and bound for single queries on large indexes, else a scan.

If a number of clusters is given, only these are searched (`beam`).

Letters: B queries, W width of query and tables, I items, T tiles, X excluded items, V words.
"""

from typing import get_args

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.beam import beam
from efficientids_flax.core.head.search.bounded import bounded, fits
from efficientids_flax.core.head.search.filters import make_filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import Kind, scored
from efficientids_flax.core.head.search.scan import scan
from efficientids_flax.core.head.top import TopItems, check_filters


def search(
    index: SearchIndex,
    query: jax.Array,
    k: int,
    *,
    kind: Kind = "scores",
    soft_cap: float | None = None,
    word_logits: jax.Array | None = None,
    exclude: jax.Array | None = None,
    allowed: jax.Array | None = None,
    clusters: int | None = None,
) -> TopItems:
    """The k best items of each query; exact, unless `clusters` is given. Ties go by id.

    The result is that of `retrieve`, up to rounding, in a fraction of the time, because the index
    holds the items cluster by cluster.

    Args:
        index: from `build_index`.
        query: [B, W].
        k: how many items.
        kind, soft_cap, word_logits, exclude, allowed: see `retrieve`.
        clusters: search only this many clusters, the most promising ones of each query. Scores are
            exact, but better items of other clusters are missed. If fewer than k items are found,
            the row ends in id -1 with score -inf.

    Raises:
        ValueError: k is not in [1, I]; an unknown kind; shapes that do not fit each other; more
            clusters than there are, or any under full softmax.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind: expected one of {', '.join(get_args(Kind))}, found {kind!r}")
    check_filters(query.shape[:1], index.num_items, k, exclude, allowed)
    width = index.rows.shape[-1]
    if query.ndim != 2 or query.shape[1] != width:
        raise ValueError(f"query: found {list(query.shape)}, expected [B, {width}]")
    asked = query.shape[0]
    if word_logits is not None and word_logits.shape[:-1] != (asked,):
        raise ValueError(f"word_logits: found {list(word_logits.shape)}, expected {[asked, 'V']}")
    query = query.astype(jnp.float32)
    how = scored(index, query, kind, soft_cap, word_logits)
    allow = make_filter(index, exclude, allowed)
    if clusters is not None:
        there = 0 if index.clusters is None else index.clusters.shape[0]
        if not 1 <= clusters <= there:
            if not there:
                raise ValueError(f"clusters: found {clusters}, and the model has none: it is a full"
                                 " softmax; leave them out")  # fmt: skip
            raise ValueError(f"clusters: expected in [1, {there}], the number of clusters, found"
                             f" {clusters}")  # fmt: skip
        return TopItems(*beam(index, query, how, allow, k, clusters))
    if not fits(index, asked, k):
        return TopItems(*scan(index, query, how, allow, k))
    done, best = bounded(index, query, how, allow, k)
    found = jax.lax.cond(done, lambda: best, lambda: scan(index, query, how, allow, k))
    return TopItems(*found)
