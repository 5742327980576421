"""Scores of a tile's items: logits and the terms of their clusters.

Letters: Q positions, I items, K clusters, L tiles of N columns of R slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.core.head.measures.columns import highest, over_slots, power
from efficientids_flax.core.head.measures.tiles import NO_ITEM, Tiles


class How(NamedTuple):
    """How items are scored; only what is given here is computed.

    Attributes:
        cap: soft cap.
        first: float32 [K, Q], log-probability of each cluster; None under full softmax.
        others: float32 [1, Q], logsumexp of further logits of a full softmax (the words); None:
            there are none.
        added: float32 [K, Q], term of each cluster in 'original' scores; None if these are not
            needed, and under full softmax, where they are the logits.
        corrected: whether the clusters' normalisers are subtracted from 'original' scores.
        original: whether labels are ranked by 'original' scores.
        most, total, sums: whether to compute `Found.most`, `.original_total`, `.sum`.
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
    """Scores of a tile, as a base and offsets of each column that are subtracted from it.

    The scores themselves are never stored as an array. Every reader subtracts the offsets in the
    same order, so that a score is the same to the bit everywhere.

    Attributes:
        base: float32 [N, R, Q]; about `NO_ITEM` in empty slots.
        offsets: float32 [N, Q] or [1, Q] each, subtracted one after another.
    """

    base: jax.Array
    offsets: tuple[jax.Array, ...] = ()

    @property
    def slots(self) -> int:
        """R."""
        return self.base.shape[1]

    def slot(self, number: int) -> jax.Array:
        """Scores of one slot of each column, [N, Q]."""
        found = self.base[:, number]
        for offset in self.offsets:
            found = found - offset
        return found

    def all(self) -> jax.Array:
        """All scores, [N, R, Q]."""
        found = self.base
        for offset in self.offsets:
            found = found - offset[:, None]
        return found

    def at(self, slots: jax.Array) -> jax.Array:
        """Scores of the tile's slots int [Q] or [X, Q]."""
        _, length, asked = self.base.shape
        flat = slots.reshape(-1, asked)
        found = jnp.take_along_axis(self.base.reshape(-1, asked), flat, axis=0)
        for offset in self.offsets:
            column = jnp.minimum(flat // length, offset.shape[0] - 1)
            found = found - jnp.take_along_axis(offset, column, axis=0)
        return found.reshape(slots.shape)

    def sum_of_base(self, when: Any) -> jax.Array:
        """Sum of the base over all items, [Q]; 0 if not `when`."""

        def term(number: int) -> jax.Array:
            base = self.base[:, number]
            return jnp.where(base > 0.5 * NO_ITEM, base, 0.0)

        return jnp.sum(over_slots(term, self.slots, when), axis=0)


class Total(NamedTuple):
    """A running logsumexp, float32 [Q]: a value `near` it, and the sum of exp(x - near)."""

    near: jax.Array
    powers: jax.Array

    def joined(self, scores: Scores, when: Any) -> Total:
        """The logsumexp with a tile's scores added, if `when`; the first slot must hold an item.

        Takes one pass: `near` is the first value ever seen. Only if the sum of powers overflows,
        since another value is much higher, it is replaced by the highest value so far.
        """

        def of_all(near: jax.Array) -> jax.Array:
            return jnp.sum(_powers(scores, near[None], when), axis=0)

        near = jnp.where(jnp.isneginf(self.near), scores.slot(0)[0], self.near)
        powers = self.powers + of_all(near)

        def by_highest() -> Total:
            top = jnp.maximum(self.near, jnp.max(highest(scores.all()), axis=0))
            return Total(top, self.powers * jnp.exp(self.near - top) + of_all(top))

        overflows = jnp.any(jnp.isinf(powers))
        return jax.lax.cond(overflows, by_highest, lambda: Total(near, powers))

    def value(self, others: jax.Array | None = None) -> jax.Array:
        """The logsumexp, [Q], including `others` [1, Q]."""
        near, rest = self.offsets(others)
        return (near + rest)[0]

    def offsets(self, others: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Two terms, [1, Q] each, that normalise logits if subtracted in order.

        Subtracting `near` first keeps the second from being rounded away.
        """
        near, rest = self.near[None], jnp.log(self.powers)[None]
        if others is not None:
            rest = jnp.logaddexp(rest, others - near)
        return near, rest


def scores_of(
    how: How, tiles: Tiles, tile: jax.Array, raw: jax.Array, when: Any
) -> tuple[Scores, Scores]:
    """(log-probabilities, 'original' scores) of a tile's items.

    Under full softmax both are logits. If 'original' scores are not needed, the second equals the
    first.

    Args:
        how: how items are scored.
        tiles: from `tiles_of`.
        tile: int [], number of the tile.
        raw: float32 [N, R, Q], products of items and queries.
        when: bool [], True, but not a constant at compile time; see `over_slots`.
    """
    logits = raw
    if how.cap:
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        logits = jnp.where(ids >= 0, soft_cap(raw, how.cap), NO_ITEM)
        logits = jax.lax.optimization_barrier(logits)  # computed once: the same bits everywhere
    if how.first is None:
        return Scores(logits), Scores(logits)
    served = _normalised(logits, tiles, tile, how.first, when)
    if how.added is None:
        return Scores(logits, served[:2]), Scores(logits, served[:2])
    if how.corrected:  # the normaliser is that of uncapped logits
        normaliser = _normalised(raw, tiles, tile, how.first, when)[2] if how.cap else served[2]
    else:
        normaliser = None
    original = Scores(raw, _added(tiles, tile, how.added, normaliser))
    if how.cap:
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        capped = jnp.where(ids >= 0, soft_cap(original.all(), how.cap), NO_ITEM)
        original = Scores(jax.lax.optimization_barrier(capped))
    return Scores(logits, served[:2]), original


def _powers(scores: Scores, shift: jax.Array, when: Any) -> jax.Array:
    """Sum of exp(score - shift) over the slots of each column, [N, Q]; shift [N, Q] or [1, Q]."""
    return over_slots(lambda slot: power(scores.slot(slot) - shift), scores.slots, when)


def _normalised(
    logits: jax.Array, tiles: Tiles, tile: jax.Array, added: jax.Array, when: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Offsets that turn a tile's logits into log-probabilities: float32 [N, Q] each.

    Within a cluster a log-probability is `(logit - shift) + (added - log(sum of powers))`. The
    shift is the logit of the cluster's first item: so one power is 1, and one pass over the tile
    suffices. If the powers overflow, since another logit is much higher, the shift is the highest.

    Args:
        logits: float32 [N, R, Q].
        tiles, tile, when: see `scores_of`.
        added: float32 [K, Q], term of each cluster.

    Returns:
        Two offsets to subtract from a logit in order, and the normaliser of the logits.
    """
    start, number, clusters = (jnp.asarray(part)[tile] for part in _places(tiles.clusters))

    def made(shift: jax.Array, powers: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        rest = jnp.log(powers)
        own = rest - added[jnp.maximum(clusters, 0)]
        own = jnp.where((clusters < 0)[:, None], -NO_ITEM, own)
        return shift, own[number], shift + rest[number]

    def of_clusters(join: Callable[..., jax.Array], values: jax.Array) -> jax.Array:
        """[N, Q] -> [C, Q]: reduce over the columns of each cluster."""
        return join(values, number, len(clusters), indices_are_sorted=True)

    def powers_of(shift: jax.Array) -> jax.Array:
        return of_clusters(jax.ops.segment_sum, _powers(Scores(logits), shift, when))

    def by_highest() -> tuple[jax.Array, jax.Array, jax.Array]:
        top = of_clusters(jax.ops.segment_max, highest(logits))[number]
        return made(top, powers_of(top))

    shift = jax.lax.optimization_barrier(logits[start, 0])
    powers = powers_of(shift)
    # Results of a branch are materialised; otherwise XLA would recompute them for every score.
    return jax.lax.cond(jnp.any(jnp.isinf(powers)), by_highest, lambda: made(shift, powers))


def _added(
    tiles: Tiles, tile: jax.Array, added: jax.Array, normaliser: jax.Array | None
) -> tuple[jax.Array, ...]:
    """Offsets that turn products into the original's scores: float32 [N, Q] each."""
    clusters = jnp.asarray(tiles.clusters)[tile]
    own = jnp.where((clusters < 0)[:, None], -NO_ITEM, -added[jnp.maximum(clusters, 0)])
    return (own,) if normaliser is None else (own, normaliser)


def _places(clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index the clusters of columns [L, N] within each tile; a tile has at most C clusters.

    Returns:
        Int32 [L, N], the first column of a column's cluster; int32 [L, N], the cluster's number
        within its tile; int32 [L, C], the clusters of each tile, padded with -1.
    """
    starts = np.ones(clusters.shape, bool)
    starts[:, 1:] = clusters[:, 1:] != clusters[:, :-1]
    begin = np.where(starts, np.arange(clusters.shape[1]), 0)
    begin, number = np.maximum.accumulate(begin, axis=1), np.cumsum(starts, axis=1) - 1
    of_tile = np.full((len(clusters), int(number.max(initial=0)) + 1), -1)
    np.put_along_axis(of_tile, number, clusters, axis=1)
    return begin.astype(np.int32), number.astype(np.int32), of_tile.astype(np.int32)
