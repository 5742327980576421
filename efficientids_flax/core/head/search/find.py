"""The best items of queries, exactly, from an index: bounded where few are asked for, else a pass.

Letters: B queries, W width of query and tables, I items, T tiles, X excluded items, V words.
"""

from typing import get_args

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.retrieval import TopItems, check_filters
from efficientids_flax.core.head.search.bounded import bounded, fits
from efficientids_flax.core.head.search.filters import make_filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import Kind, scored
from efficientids_flax.core.head.search.scan import scan


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
) -> TopItems:
    """The k best items of each query; equal scores go by id.

    Gives what `retrieve` gives, to the rounding of products that are taken in another order, in a
    fraction of the time: the index holds the items cluster by cluster.

    Args:
        index: of `build_index`.
        query: [B, W].
        k: how many.
        kind, soft_cap, word_logits, exclude, allowed: see `retrieve`.

    Raises:
        ValueError: k is not in [1, I]; no such kind; shapes that do not fit each other.
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
    if not fits(index, asked, k):
        return TopItems(*scan(index, query, how, allow, k))
    done, best = bounded(index, query, how, allow, k)
    found = jax.lax.cond(done, lambda: best, lambda: scan(index, query, how, allow, k))
    return TopItems(*found)
