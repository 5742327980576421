"""Filters: which items a search may return.

Letters: B queries, I items, X excluded items, T tiles of R rows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.index import SearchIndex


class Filter(NamedTuple):
    """Items that may be returned.

    Attributes:
        allowed: bool [T, R] or [B, T, R]; None: all.
        excluded: int [B, X], places among T x R to leave out, padded with T R; None: none.
    """

    allowed: jax.Array | None
    excluded: jax.Array | None

    def of_range(self, start: Any, count: int, ids: jax.Array) -> jax.Array:
        """The filter of C adjacent tiles, bool [C, R, B] or [C, R, 1].

        Args:
            start: the first tile.
            count: C.
            ids: int [C, R], ids of the tiles' items.
        """
        there = (ids >= 0)[..., None]
        if self.allowed is not None:
            allowed = jnp.moveaxis(self.allowed.reshape(-1, *self.allowed.shape[-2:]), 0, -1)
            there = there & jax.lax.dynamic_slice_in_dim(allowed, start, count)
        if self.excluded is None:
            return there
        asked, size = self.excluded.shape[0], ids.size
        there = jnp.broadcast_to(there, (*ids.shape, asked)).reshape(size, asked)
        place = self.excluded - start * ids.shape[1]
        place = jnp.where((place >= 0) & (place < size), place, size)  # `size` is dropped
        found = there.at[place, jnp.arange(asked)[:, None]].set(False, mode="drop")
        return found.reshape(*ids.shape, asked)

    def of_tiles(self, query: Any, tiles: jax.Array, ids: jax.Array) -> jax.Array:
        """The filter of tiles int [t] with ids [t, R], for query number `query`: bool [t, R]."""
        there = ids >= 0
        if self.allowed is not None:
            one = self.allowed.ndim == 2
            there = there & (self.allowed[tiles] if one else self.allowed[query, tiles])
        if self.excluded is not None:
            places = tiles[:, None] * ids.shape[1] + jnp.arange(ids.shape[1])
            there = there & ~jnp.isin(places, self.excluded[query])
        return there


def make_filter(index: SearchIndex, exclude: jax.Array | None, allowed: jax.Array | None) -> Filter:
    """A filter from item ids; see `search`.

    Args:
        index: where each item is.
        exclude: int [B, X].
        allowed: bool [I] or [B, I].
    """
    ids = index.order.ids
    if allowed is not None:
        allowed = jnp.asarray(allowed, bool)[..., jnp.maximum(ids, 0)]
    if exclude is not None:
        known = (exclude >= 0) & (exclude < index.num_items)
        exclude = jnp.where(known, index.order.places[jnp.where(known, exclude, 0)], ids.size)
    return Filter(allowed, exclude)
