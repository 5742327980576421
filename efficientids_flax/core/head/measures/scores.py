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
from efficientids_flax.core.head.measures.columns import highest, over_slots, power
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
    """Scores of a tile: a base, and in turn what is subtracted from that of each column.

    They are not there as an array: what reads them subtracts as it goes, in one order everywhere.

    Attributes:
        base: float32 [N, R, Q]; `NO_ITEM` or about that where there is none.
        offsets: float32 [N, Q] or [1, Q] each, subtracted in turn.
    """

    base: jax.Array
    offsets: tuple[jax.Array, ...] = ()

    @property
    def slots(self) -> int:
        """R."""
        return self.base.shape[1]

    def slot(self, number: int) -> jax.Array:
        """Of one slot of each column, [N, Q]."""
        found = self.base[:, number]
        for offset in self.offsets:
            found = found - offset
        return found

    def all(self) -> jax.Array:
        """[N, R, Q]."""
        found = self.base
        for offset in self.offsets:
            found = found - offset[:, None]
        return found

    def at(self, slots: jax.Array) -> jax.Array:
        """Of slots int [Q] or [X, Q] of the tile."""
        _, length, asked = self.base.shape
        flat = slots.reshape(-1, asked)
        found = jnp.take_along_axis(self.base.reshape(-1, asked), flat, axis=0)
        for offset in self.offsets:
            column = jnp.minimum(flat // length, offset.shape[0] - 1)
            found = found - jnp.take_along_axis(offset, column, axis=0)
        return found.reshape(slots.shape)

    def sum_of_base(self, when: Any) -> jax.Array:
        """[Q], of the items, if `when`."""

        def term(number: int) -> jax.Array:
            base = self.base[:, number]
            return jnp.where(base > 0.5 * NO_ITEM, base, 0.0)

        return jnp.sum(over_slots(term, self.slots, when), axis=0)


class Total(NamedTuple):
    """logsumexp of what was seen: float32 [Q], a value near it, and the sum of exp(x - near)."""

    near: jax.Array
    powers: jax.Array

    def joined(self, scores: Scores, when: Any) -> Total:
        """With more, of which the first is one that counts, if `when`.

        It is one pass: what is near is the first value of all, or, where another is higher by so
        much that powers overflow, the highest so far.
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
        """[Q], with `others` [1, Q] in it."""
        near, rest = self.offsets(others)
        return (near + rest)[0]

    def offsets(self, others: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """What normalises logits, [1, Q] each: what is near goes first, which leaves digits."""
        near, rest = self.near[None], jnp.log(self.powers)[None]
        if others is not None:
            rest = jnp.logaddexp(rest, others - near)
        return near, rest


def scores_of(
    how: How, tiles: Tiles, tile: jax.Array, raw: jax.Array, when: Any
) -> tuple[Scores, Scores]:
    """(Log-probabilities, the original's scores) of a tile's items.

    Under full softmax both are logits. The second are the first where they are not asked for.

    Args:
        how: items are scored.
        tiles: of `tiles_of`.
        tile: its number, int [].
        raw: float32 [N, R, Q], products.
        when: bool [], True but not known to the compiler.
    """
    logits = raw
    if how.cap:
        ids = jnp.asarray(tiles.ids)[tile][..., None]
        logits = jnp.where(ids >= 0, soft_cap(raw, how.cap), NO_ITEM)
        logits = jax.lax.optimization_barrier(logits)  # made once, so the same wherever it is read
    if how.first is None:
        return Scores(logits), Scores(logits)
    served = _normalised(logits, tiles, tile, how.first, when)
    if how.added is None:
        return Scores(logits, served[:2]), Scores(logits, served[:2])
    if how.corrected:  # the soft cap of the scores is not in their normaliser
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
    """[N, Q], sum of exp(score - shift) over the slots of a column; shift [N, Q] or [1, Q]."""
    return over_slots(lambda slot: power(scores.slot(slot) - shift), scores.slots, when)


def _normalised(
    logits: jax.Array, tiles: Tiles, tile: jax.Array, added: jax.Array, when: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What makes log-probabilities of a tile's logits: float32 [N, Q] each.

    Within a cluster a log-probability is `(logit - shift) + (added - log(sum of powers))`. The
    shift is the logit of the cluster's first item, so one power is 1, and one pass over the tile
    will do. Where another logit is higher by so much that powers overflow, it is the highest.

    Args:
        logits: float32 [N, R, Q].
        tiles, tile, when: see `scores_of`.
        added: float32 [K, Q], of each cluster.

    Returns:
        What is subtracted from a logit in turn, and the normaliser.
    """
    start, number, clusters = (jnp.asarray(part)[tile] for part in _places(tiles.clusters))

    def made(shift: jax.Array, powers: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        rest = jnp.log(powers)
        own = rest - added[jnp.maximum(clusters, 0)]
        own = jnp.where((clusters < 0)[:, None], -NO_ITEM, own)
        return shift, own[number], shift + rest[number]

    def of_clusters(join: Callable[..., jax.Array], values: jax.Array) -> jax.Array:
        """[N, Q] -> [C, Q], those of all columns of a cluster joined."""
        return join(values, number, len(clusters), indices_are_sorted=True)

    def powers_of(shift: jax.Array) -> jax.Array:
        return of_clusters(jax.ops.segment_sum, _powers(Scores(logits), shift, when))

    def by_highest() -> tuple[jax.Array, jax.Array, jax.Array]:
        top = of_clusters(jax.ops.segment_max, highest(logits))[number]
        return made(top, powers_of(top))

    shift = jax.lax.optimization_barrier(logits[start, 0])
    powers = powers_of(shift)
    # What branches return is there as an array. Else it would be made again for every score.
    return jax.lax.cond(jnp.any(jnp.isinf(powers)), by_highest, lambda: made(shift, powers))


def _added(
    tiles: Tiles, tile: jax.Array, added: jax.Array, normaliser: jax.Array | None
) -> tuple[jax.Array, ...]:
    """What makes the original's scores: float32 [N, Q] each."""
    clusters = jnp.asarray(tiles.clusters)[tile]
    own = jnp.where((clusters < 0)[:, None], -NO_ITEM, -added[jnp.maximum(clusters, 0)])
    return (own,) if normaliser is None else (own, normaliser)


def _places(clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the clusters of columns [L, N], C at most in a tile.

    Returns:
        Int32 [L, N], where the cluster of a column begins; int32 [L, N], which one of its tile it
        is; int32 [L, C], these clusters, -1 for none.
    """
    starts = np.ones(clusters.shape, bool)
    starts[:, 1:] = clusters[:, 1:] != clusters[:, :-1]
    begin = np.where(starts, np.arange(clusters.shape[1]), 0)
    begin, number = np.maximum.accumulate(begin, axis=1), np.cumsum(starts, axis=1) - 1
    of_tile = np.full((len(clusters), int(number.max(initial=0)) + 1), -1)
    np.put_along_axis(of_tile, number, clusters, axis=1)
    return begin.astype(np.int32), number.astype(np.int32), of_tile.astype(np.int32)
