"""Cross entropy among the members of a cluster, from as many of its logits as are at hand.

Sums over the tiles of a cluster are merged, and give the loss; with them the gradient of any tile
is its own affair (the online softmax of arXiv 1805.02867).

Letters: C clusters, M members of a tile, G positions; logits are [C, M, G], so that sums over
members go down columns, which is how a vector unit takes them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap

NO_MEMBER = -1e30  # finite: a tile without any member has a highest logit that can be subtracted


class Tile(NamedTuple):
    """Which members of its cluster a tile holds, and where the labels stand.

    Attributes:
        valid: bool [C, M], whether there is a member.
        labels: int [C, G], the row of the position's label; outside of [0, M) where it is not here.
    """

    valid: jax.Array
    labels: jax.Array


class Sums(NamedTuple):
    """What is known of the logits of some members, float32 [C, G] each.

    Attributes:
        highest: logit; `NO_MEMBER` without members.
        exponentials: sum of exp(logit - highest).
        total: sum of the logits.
        own: the label's logit; 0 where it is not among them.
    """

    highest: jax.Array
    exponentials: jax.Array
    total: jax.Array
    own: jax.Array

    @property
    def normaliser(self) -> jax.Array:
        """Logsumexp of the logits."""
        return self.highest + jnp.log(self.exponentials)

    def merged(self, other: "Sums") -> "Sums":
        """Of the members of both."""
        highest = jnp.maximum(self.highest, other.highest)
        one, two = (part.exponentials * jnp.exp(part.highest - highest) for part in (self, other))
        return Sums(highest, one + two, self.total + other.total, self.own + other.own)


@dataclass(frozen=True)
class Entropy:
    """Which cross entropy it is.

    Attributes:
        cap: soft cap on the logits; None and 0 are none.
        smoothing: probability that the members other than the label share. A cluster of one member
            is not smoothed, where the original divides by zero and gives NaN.
    """

    cap: float | None = None
    smoothing: float = 0.0

    def logits(self, products: jax.Array, tile: Tile) -> jax.Array:
        """float32 [C, M, G], with the cap, of the products of members with queries.

        What is no member is left out after the cap, which alone would give it a probability.
        """
        logits = soft_cap(products.astype(jnp.float32), self.cap)
        return jnp.where(tile.valid[:, :, None], logits, NO_MEMBER)

    def sums(self, logits: jax.Array, tile: Tile) -> Sums:
        """What a tile adds, of `logits`."""
        highest = jnp.max(logits, axis=1)
        total = jnp.zeros_like(highest)
        if self.smoothing:
            total = jnp.sum(jnp.where(tile.valid[:, :, None], logits, 0.0), axis=1)
        exponentials = jnp.sum(jnp.exp(logits - highest[:, None]), axis=1)
        return Sums(highest, exponentials, total, _own(logits, tile.labels))

    def losses(self, sums: Sums, sizes: jax.Array) -> jax.Array:
        """float32 [C, G].

        Args:
            sums: of all members.
            sizes: int [C], how many they are.
        """
        # The highest logit goes first: a large one leaves no digits to the rest.
        rest = jnp.log(sums.exponentials)
        own = (sums.own - sums.highest) - rest
        if not self.smoothing:
            return -own
        label, other = self._targets(sizes)
        count = sizes.astype(jnp.float32)[:, None]
        every = (sums.total - count * sums.highest) - count * rest
        return -(label[:, None] * own + other[:, None] * (every - own))

    def gradients(
        self,
        logits: jax.Array,
        tile: Tile,
        sums: Sums,
        sizes: jax.Array,
        weights: jax.Array,
        of_normaliser: jax.Array | None = None,
    ) -> jax.Array:
        """Gradient of the losses' weighted sum by the products of a tile, float32 [C, M, G].

        Args:
            logits: of the tile, with their cap.
            tile: which members they are.
            sums: of all members of the clusters.
            sizes: int [C].
            weights: float32 [C, G].
            of_normaliser: float32 [C, G], weights of the logsumexp of all logits in the sum; None
                where it is not in it.
        """
        label, other = self._targets(sizes)
        shares = weights if of_normaliser is None else weights + of_normaliser
        # Without members, as where there is no position, there is nothing to share.
        none = sums.exponentials == 0.0
        shares = jnp.where(none, 0.0, shares / jnp.where(none, 1.0, sums.exponentials))
        found = jnp.exp(logits - sums.highest[:, None]) * shares[:, None]
        if self.smoothing:
            rest = (weights * other[:, None])[:, None]
            found = found - jnp.where(tile.valid[:, :, None], rest, 0.0)
        own = weights * (label - other)[:, None]
        if self.cap:  # of what is no member the ratio has no meaning, and the gradient is zero
            found = found * (1.0 - jnp.square(jnp.maximum(logits / self.cap, -1.0)))
            own = own * (1.0 - jnp.square(sums.own / self.cap))
        clusters, positions = (
            jax.lax.broadcasted_iota(jnp.int32, own.shape, axis) for axis in (0, 1)
        )
        rows = jnp.where(tile.labels >= 0, tile.labels, logits.shape[1])
        return found.at[clusters, rows, positions].add(-own, mode="drop", unique_indices=True)

    def _targets(self, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(Target of the label, target of each other member), float32 [C]."""
        others = jnp.maximum(sizes - 1, 1).astype(jnp.float32)
        alone = sizes <= 1
        return (
            jnp.where(alone, 1.0, 1.0 - self.smoothing),
            jnp.where(alone, 0.0, self.smoothing / others),
        )


def _own(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """float32 [C, G], the logits of the labels; 0 where the label is not among them."""
    rows = logits.shape[1]
    found = jnp.take_along_axis(logits, jnp.clip(labels, 0, rows - 1)[:, None], axis=1)[:, 0]
    return jnp.where((labels >= 0) & (labels < rows), found, 0.0)
