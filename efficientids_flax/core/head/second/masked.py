"""Losses of positions among the members of their clusters, from their products with all items.

For a tiny catalogue one product with every item costs less than visiting each cluster. Items
outside the label's cluster are masked. Losses and gradients equal those of `by_cluster` up to
float32 rounding in another order of summation.

Letters: P positions, W width of queries, E width of the table, I items, K clusters.
"""

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.head.second.by_cluster import Given, Gradients
from efficientids_flax.core.head.second.entropy import Entropy, Sums, Tile
from efficientids_flax.core.head.second.visits import Tables

# (width of query or row up to, products P I up to) where this is faster, as measured.
FASTER = ((64, 1 << 15), (256, 1 << 13))


def is_faster(width: int, products: int) -> bool:
    """Whether this is faster than `by_cluster`.

    Args:
        width: width of queries or rows, the larger one.
        products: P I.
    """
    return any(width <= widest and products <= most for widest, most in FASTER)


class Masked:
    """The second pass on one device; has the methods of `ByCluster`."""

    def __init__(
        self, entropy: Entropy, cluster_of: np.ndarray, counts: np.ndarray, tables: Tables,
        given: Given,
    ) -> None:  # fmt: skip
        """Compute the logits.

        Args:
            entropy: soft cap and smoothing.
            cluster_of: int [items of all shards].
            counts: int [K], members of each cluster.
            tables: the shard of the layout that belongs to the given rows.
            given: all arrays.
        """
        self._entropy, self._given = entropy, given
        clusters, count = given.labels.clusters, given.rows.shape[0]
        self._known = clusters < len(counts)
        self._counts = jnp.asarray(counts)[jnp.minimum(clusters, len(counts) - 1)]
        of_rows = jax.lax.dynamic_slice_in_dim(jnp.asarray(cluster_of), tables.first, count)
        self._adapted, self._back = jax.vjp(lambda adapter, rows: adapter(rows), given.adapter,
                                            given.rows)  # fmt: skip
        own = given.labels.items - tables.first
        here = self._known & (own >= 0) & (own < count)
        # For `Entropy` each position is a cluster of its own (C = P, G = 1).
        self._tile = Tile(of_rows == clusters[:, None], jnp.where(here, own, -1)[:, None])
        products = jnp.einsum("pw,iw->pi", given.query, self._adapted)
        self._logits = entropy.logits(products[:, :, None], self._tile)

    def sums(self) -> Sums:
        """Sums over the members, float32 [P]."""
        return jax.tree.map(lambda x: x[:, 0], self._entropy.sums(self._logits, self._tile))

    def losses(self, sums: Sums) -> jax.Array:
        """Losses from the sums over all members, float32 [P]; 0 where there is no label."""
        each = self._entropy.losses(jax.tree.map(lambda x: x[:, None], sums), self._counts)
        return jnp.where(self._known, each[:, 0], 0.0)

    def gradients(self, sums: Sums) -> Gradients:
        """Gradients of the weighted sum of the losses, given the sums over all members."""
        weights = jnp.where(self._known, self._given.weights, 0.0)
        of_logits = self._entropy.gradients(
            self._logits, self._tile, jax.tree.map(lambda x: x[:, None], sums), self._counts,
            weights[:, None],
        )[:, :, 0].astype(self._adapted.dtype)  # fmt: skip
        # An item that is not finite must not spoil positions of other clusters by 0 * inf = NaN.
        # For positions of its own cluster the gradient of the logits is NaN already.
        finite = jnp.where(jnp.isfinite(self._adapted), self._adapted, 0.0)
        of_query = jnp.einsum("pi,iw->pw", of_logits, finite)
        of_adapted = jnp.einsum("pi,pw->iw", of_logits, self._given.query)
        of_adapter, of_rows = self._back(of_adapted)
        return Gradients(of_query, of_rows, of_adapter)

    def both(self) -> tuple[jax.Array, Gradients]:
        """(`losses`, `gradients`); only if the device has all items."""
        sums = self.sums()
        return self.losses(sums), self.gradients(sums)
