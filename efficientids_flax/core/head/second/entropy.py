"""Cross entropy among the members of a cluster, computed tile by tile.

Sums over the tiles of a cluster are merged, and give the loss. Given the merged sums, the gradient
of each tile is computed independently (the online softmax of arXiv 1805.02867).

Letters: C clusters, M members of a tile, G positions. Logits are [C, M, G], so that sums over
members vectorise along the positions.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap

NO_MEMBER = -1e30  # logit of padding; finite, so that an empty tile's highest can be subtracted


class Tile(NamedTuple):
    """The members that a tile holds, and the labels among them.

    Attributes:
        valid: bool [C, M], False for padding.
        labels: int [C, G], index of the position's label; outside [0, M) if it is not in this tile.
    """

    valid: jax.Array
    labels: jax.Array


class Sums(NamedTuple):
    """Running sums over the logits of some members, float32 [C, G] each.

    Attributes:
        highest: highest logit; `NO_MEMBER` without members.
        exponentials: sum of exp(logit - highest).
        total: sum of the logits; only computed if labels are smoothed, else 0.
        own: the label's logit; 0 if the label is not among these members.
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
        """The sums over the members of both."""
        highest = jnp.maximum(self.highest, other.highest)
        one, two = (part.exponentials * jnp.exp(part.highest - highest) for part in (self, other))
        return Sums(highest, one + two, self.total + other.total, self.own + other.own)


@dataclass(frozen=True)
class Entropy:
    """A cross entropy with soft cap and label smoothing.

    Attributes:
        cap: soft cap on the logits; None or 0: no cap.
        smoothing: probability mass that the members other than the label share. Clusters with one
            member are not smoothed; the original divides by zero there and gives NaN.
    """

    cap: float | None = None
    smoothing: float = 0.0

    def logits(self, products: jax.Array, tile: Tile) -> jax.Array:
        """Capped logits from the products of members and queries, float32 [C, M, G].

        Padding is masked after the cap, which would otherwise lift it to -cap.
        """
        logits = soft_cap(products.astype(jnp.float32), self.cap)
        return jnp.where(tile.valid[:, :, None], logits, NO_MEMBER)

    def sums(self, logits: jax.Array, tile: Tile) -> Sums:
        """Sums over one tile; `logits` are those of `Entropy.logits`."""
        highest = jnp.max(logits, axis=1)
        total = jnp.zeros_like(highest)
        if self.smoothing:
            total = jnp.sum(jnp.where(tile.valid[:, :, None], logits, 0.0), axis=1)
        exponentials = jnp.sum(jnp.exp(logits - highest[:, None]), axis=1)
        return Sums(highest, exponentials, total, _own(logits, tile.labels))

    def losses(self, sums: Sums, sizes: jax.Array) -> jax.Array:
        """Losses, float32 [C, G].

        Args:
            sums: over all members.
            sizes: int [C], number of members.
        """
        # Subtract the highest logit first: added to a large logit, `rest` would be rounded away.
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
        """Gradient of the weighted sum of the losses by a tile's products, float32 [C, M, G].

        Args:
            logits: capped logits of the tile.
            tile: the members of the tile.
            sums: over all members of the clusters.
            sizes: int [C], number of members.
            weights: float32 [C, G], weights of the losses.
            of_normaliser: float32 [C, G], weights of the logsumexp of all logits, if the sum has
                such a term (for the z-loss); None: it has none.
        """
        label, other = self._targets(sizes)
        shares = weights if of_normaliser is None else weights + of_normaliser
        # Padding has no members: avoid 0 / 0.
        none = sums.exponentials == 0.0
        shares = jnp.where(none, 0.0, shares / jnp.where(none, 1.0, sums.exponentials))
        found = jnp.exp(logits - sums.highest[:, None]) * shares[:, None]
        if self.smoothing:
            rest = (weights * other[:, None])[:, None]
            found = found - jnp.where(tile.valid[:, :, None], rest, 0.0)
        own = weights * (label - other)[:, None]
        if self.cap:  # d tanh; clipped at -1 since padding logits are far below -cap: gradient 0
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
    """The logits of the labels, float32 [C, G]; 0 if the label is not in this tile."""
    rows = logits.shape[1]
    found = jnp.take_along_axis(logits, jnp.clip(labels, 0, rows - 1)[:, None], axis=1)[:, 0]
    return jnp.where((labels >= 0) & (labels < rows), found, 0.0)
