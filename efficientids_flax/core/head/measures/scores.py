"""Scores of a tile's items: logits, and what their clusters add.

Letters: Q positions, I items, K clusters, L tiles of N columns of R slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


def scores_of(how: How, tiles: Tiles, tile: jax.Array, raw: jax.Array) -> tuple[Scores, Scores]:
    """(Log-probabilities, the original's scores) of a tile's items.

    Under full softmax both are logits. The second are the first where they are not asked for.

    Args:
        how: items are scored.
        tiles: of `tiles_of`.
        tile: its number, int [].
        raw: float32 [N, R, Q], products.
    """
    logits = raw
    if how.cap:
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        logits = jnp.where(ids >= 0, soft_cap(raw, how.cap), NO_ITEM)
        logits = jax.lax.optimization_barrier(logits)  # made once, so the same wherever it is read
    if how.first is None:
        return Scores(logits), Scores(logits)
    none = (jnp.asarray(tiles.clusters)[tile] < 0)[:, None]
    clusters = jnp.maximum(jnp.asarray(tiles.clusters)[tile], 0)
    highest, rest = _normalisers(logits, tiles, tile)
    added = jnp.where(none, NO_ITEM, how.first[clusters] - rest)
    served = Scores(logits, (-highest, added))
    if how.added is None:
        return served, served
    added = jnp.where(none, NO_ITEM, how.added[clusters])
    if not how.corrected:
        original = Scores(raw, (added,))
    else:
        if how.cap:  # that of the scores is not in their normaliser
            highest, rest = _normalisers(raw, tiles, tile)
        original = Scores(raw, (added, -(highest + rest)))
    if how.cap:
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        capped = jnp.where(ids >= 0, soft_cap(original.all(), how.cap), NO_ITEM)
        original = Scores(jax.lax.optimization_barrier(capped))
    return served, original


def by_column(reduce: Callable[..., jax.Array], values: jax.Array, **options: Any) -> jax.Array:
    """[N, R, Q] -> [N, Q], on its own: over both axes at once no vector unit would take it."""
    return jax.lax.optimization_barrier(reduce(values, axis=1, **options))


def _normalisers(logits: jax.Array, tiles: Tiles, tile: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[N, R, Q] -> [N, Q] twice: the highest logit of a column's cluster, and the rest."""
    highest = _of_clusters(jnp.maximum, -jnp.inf, by_column(jnp.max, logits), tiles, tile)
    powers = by_column(jnp.sum, jnp.exp(logits - highest[:, None]))
    return highest, jnp.log(_of_clusters(jnp.add, 0.0, powers, tiles, tile))


def _of_clusters(
    join: Callable[..., jax.Array], neutral: float, values: jax.Array, tiles: Tiles, tile: jax.Array
) -> jax.Array:
    """[N, Q] -> [N, Q], the values of all columns of a cluster joined.

    Each takes what the one before it has, then the one two before, four before: a prefix sum, which
    is whole in the last column of the cluster.
    """
    if tiles.longest == 1:
        return values
    clusters = jnp.asarray(tiles.clusters)[tile]
    step = 1
    while step < tiles.longest:
        earlier = jnp.concatenate([jnp.full((step, values.shape[1]), neutral), values[:-step]])
        same = jnp.concatenate([jnp.zeros(step, bool), clusters[step:] == clusters[:-step]])
        values = join(values, jnp.where(same[:, None], earlier, neutral))
        values = jax.lax.optimization_barrier(values)
        step *= 2
    last = jnp.asarray(_last_columns(tiles.clusters))[tile]
    return jax.lax.optimization_barrier(values[last])


def _last_columns(clusters: np.ndarray) -> np.ndarray:
    """Int [L, N], where the cluster of a column ends."""
    ends = np.ones(clusters.shape, bool)
    ends[:, :-1] = clusters[:, :-1] != clusters[:, 1:]
    numbers = np.where(ends, np.arange(clusters.shape[1]), clusters.shape[1])
    return np.minimum.accumulate(numbers[:, ::-1], axis=1)[:, ::-1].astype(np.int32)
