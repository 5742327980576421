"""Scores of a tile's items: logits, and what their clusters add.

Letters: Q positions, I items, K clusters, L tiles of N columns of R slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.head.measures.tiles import NO_ITEM, Tiles


class How(NamedTuple):
    """How items are scored; which of it is there decides what is computed.

    Attributes:
        cap: soft cap.
        first: float32 [K, Q], log-probability of each cluster; None under full softmax.
        others: float32 [1, Q], logsumexp of what else is in a full softmax, None for nothing.
        added: float32 [K, Q], what clusters add to 'original' scores; None where nobody asks, and
            under full softmax, where these are the logits.
        corrected: whether their normaliser is subtracted from these.
        original: whether labels are ranked by them.
        most, total, sums: whether `Found.most`, `.original_total`, `.sum` are asked for.
    """

    cap: float | None
    first: jax.Array | None
    others: jax.Array | None = None
    added: jax.Array | None = None
    corrected: bool = False
    original: bool = False
    most: bool = False
    total: bool = False
    sums: bool = False


class Scores(NamedTuple):
    """Scores of a tile: a base, and in turn what is added to that of each column.

    They are not there as an array: what reads them adds as it goes, in the same order everywhere.

    Attributes:
        base: float32 [N, R, Q]; `NO_ITEM` or about that where there is none.
        offsets: float32 [N, Q] or [1, Q] each.
    """

    base: jax.Array
    offsets: tuple[jax.Array, ...] = ()

    def all(self) -> jax.Array:
        """[N, R, Q]."""
        found = self.base
        for offset in self.offsets:
            found = found + offset[:, None]
        return found

    def at(self, slots: jax.Array) -> jax.Array:
        """Of slots int [Q] or [X, Q] of the tile."""
        _, length, asked = self.base.shape
        flat = slots.reshape(-1, asked)
        found = jnp.take_along_axis(self.base.reshape(-1, asked), flat, axis=0)
        for offset in self.offsets:
            column = jnp.minimum(flat // length, offset.shape[0] - 1)
            found = found + jnp.take_along_axis(offset, column, axis=0)
        return found.reshape(slots.shape)

    def sum_of_base(self) -> jax.Array:
        """[Q], of the items."""
        each = jnp.where(self.base > 0.5 * NO_ITEM, self.base, 0.0)
        return jnp.sum(by_column(jnp.sum, each), axis=0)


class Total(NamedTuple):
    """logsumexp of what was seen: float32 [Q], the highest, and the sum of exp(value - highest)."""

    highest: jax.Array
    powers: jax.Array

    def joined(self, values: jax.Array) -> Total:
        """With more values [N, R, Q]."""
        top = jnp.maximum(self.highest, jnp.max(by_column(jnp.max, values), axis=0))
        more = by_column(jnp.sum, jnp.exp(values - top))
        return Total(top, self.powers * jnp.exp(self.highest - top) + jnp.sum(more, axis=0))

    def value(self, others: jax.Array | None = None) -> jax.Array:
        """[Q], with `others` [1, Q] in it."""
        highest, rest = self.offsets(others)
        return -(highest + rest)[0]

    def offsets(self, others: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """What normalises logits, [1, Q] each: the highest goes first, which leaves digits."""
        highest, rest = self.highest[None], jnp.log(self.powers)[None]
        if others is not None:
            rest = jnp.logaddexp(rest, others - highest)
        return -highest, -rest


def logits_of(how: How, tiles: Tiles, tile: jax.Array, raw: jax.Array) -> jax.Array:
    """Logits of a tile's items, [N, R, Q], of their products, float32 [N, R, Q]."""
    if not how.cap:
        return raw
    ids = jnp.asarray(tiles.ids)[tile][..., None]
    logits = jnp.where(ids >= 0, soft_cap(raw, how.cap), NO_ITEM)
    return jax.lax.optimization_barrier(logits)  # made once, so the same wherever it is read


def normalisers_of(
    how: How, tiles: Tiles, tile: jax.Array, logits: jax.Array, raw: jax.Array
) -> tuple[jax.Array, ...]:
    """What normalises within the clusters of a tile: float32 [N, Q] each, for `scores_of`."""
    clusters = jnp.asarray(tiles.clusters)[tile]
    found = _normalisers(logits, clusters, tiles.longest)
    if how.added is not None and how.corrected and how.cap:  # a cap is not in this normaliser
        found += _normalisers(raw, clusters, tiles.longest)
    return found


def scores_of(
    how: How,
    tiles: Tiles,
    tile: jax.Array,
    logits: jax.Array,
    raw: jax.Array,
    normalisers: tuple[jax.Array, ...],
) -> tuple[Scores, Scores]:
    """(Log-probabilities, the original's scores) of a tile's items.

    Under full softmax both are logits. The second are the first where they are not asked for.

    Args:
        how: items are scored.
        tiles: of `tiles_of`.
        tile: its number, int [].
        logits: of `logits_of`.
        raw: float32 [N, R, Q], products.
        normalisers: of `normalisers_of`; () under full softmax.
    """
    if how.first is None:
        return Scores(logits), Scores(logits)
    none = (jnp.asarray(tiles.clusters)[tile] < 0)[:, None]
    clusters = jnp.maximum(jnp.asarray(tiles.clusters)[tile], 0)
    highest, rest = normalisers[:2]
    added = jnp.where(none, NO_ITEM, how.first[clusters] - rest)
    served = Scores(logits, (-highest, added))
    if how.added is None:
        return served, served
    added = jnp.where(none, NO_ITEM, how.added[clusters])
    if not how.corrected:
        original = Scores(raw, (added,))
    else:
        highest, rest = normalisers[-2:]
        original = Scores(raw, (added, -(highest + rest)))
    if how.cap:
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        capped = jnp.where(ids >= 0, soft_cap(original.all(), how.cap), NO_ITEM)
        original = Scores(jax.lax.optimization_barrier(capped))
    return served, original


def by_column(reduce: Callable[..., jax.Array], values: jax.Array, **options: Any) -> jax.Array:
    """[N, R, Q] -> [N, Q], on its own: over both axes at once no vector unit would take it."""
    return jax.lax.optimization_barrier(reduce(values, axis=1, **options))


def _normalisers(
    logits: jax.Array, clusters: jax.Array, longest: int
) -> tuple[jax.Array, jax.Array]:
    """[N, R, Q] -> [N, Q] twice: the highest logit of a column's cluster, and the rest.

    Args:
        logits: of a tile.
        clusters: int [N], of its columns; those of a cluster stand side by side.
        longest: columns that a cluster has at most.
    """
    highest = _of_clusters(jnp.maximum, by_column(jnp.max, logits), clusters, longest)
    powers = by_column(jnp.sum, jnp.exp(logits - highest[:, None]))
    return highest, jnp.log(_of_clusters(jnp.add, powers, clusters, longest))


def _of_clusters(
    join: Callable[..., jax.Array], values: jax.Array, clusters: jax.Array, longest: int
) -> jax.Array:
    """[N, Q] -> [N, Q], the values of all columns of a cluster joined, by `maximum` or a sum of
    what is not negative.

    Each takes what the one before it has, then the one two before, four before: a prefix sum, which
    is whole in the last column of the cluster. Such sums do not fall, so that the highest one of
    those after a column, found in the same way, is the whole one.
    """
    for way, joined in ((1, join), (-1, jnp.maximum)):
        step = 1
        while step < longest:
            same = (clusters[step:] == clusters[:-step])[:, None]
            begin, end = values[:step], values[-step:]
            here, there = (values[step:], values[:-step])[::way]
            more = jnp.where(same, joined(here, there), here)
            values = jnp.concatenate([begin, more] if way > 0 else [more, end])
            values = jax.lax.optimization_barrier(values)
            step *= 2
    return values
