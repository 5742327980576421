"""Scores of given items, with the normalisers that a search uses.

Letters: B queries, C candidates, W width of query and tables, V words.
"""

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.filters import Filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import Kind, Offsets, scored
from efficientids_flax.core.head.search.scan import cluster_offsets, plain, tiles_of


def score(
    index: SearchIndex,
    query: jax.Array,
    ids: jax.Array,
    *,
    kind: Kind = "scores",
    soft_cap: float | None = None,
    word_logits: jax.Array | None = None,
) -> jax.Array:
    """Scores of given items, equal to those of `search`: float32 [B, C].

    Normalised kinds of scores take a pass over all items.

    Args:
        index: from `build_index`.
        query: [B, W].
        ids: int [B, C]; ids that are not in the index score -inf.
        kind, soft_cap, word_logits: see `search`.
    """
    query = query.astype(jnp.float32)
    how = scored(index, query, kind, soft_cap, word_logits)
    # Without normalisation the result of the pass is unused, and XLA removes the pass.
    offsets = cluster_offsets(index, how, tiles_of(index, query, how, Filter(None, None)))
    known = (ids >= 0) & (ids < index.num_items)
    places = index.order.places[jnp.where(known, ids, 0)]
    known &= places < index.order.ids.size  # removed items have no place
    places = jnp.where(known, places, 0)
    rows = index.rows.reshape(-1, index.rows.shape[-1])[places]
    logits = how.logits(jnp.einsum("bcw,bw->bc", rows, query, precision="highest"))
    clusters = index.order.clusters[places // index.rows.shape[1]]
    own = Offsets(*(jnp.take_along_axis(part, clusters, axis=1) for part in offsets))
    return jnp.where(known, plain(how.scores(logits, own)), -jnp.inf)
