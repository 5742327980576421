"""Losses of positions among the members of their clusters, from their products with all items.

Of a tiny catalogue one product with every item costs less than a visit of each cluster. Items of
other clusters than the label's are left out, so that losses and gradients are those of `by_cluster`
to the rounding of float32 sums in another order.

Letters: P positions, W width of queries, E width of the table, I items, K clusters.
"""

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.head.second.by_cluster import Given, Gradients
from efficientids_flax.core.head.second.entropy import Entropy, Sums, Tile
from efficientids_flax.core.head.second.visits import Tables

# (Widest query or row, products P I up to which it is faster.) Wider ones are never.
FASTER = ((64, 1 << 15), (256, 1 << 13))


def is_faster(width: int, products: int) -> bool:
    """Whether the products with all items cost less.

    Args:
        width: of queries or rows, the larger one.
        products: P I.
    """
    return any(width <= widest and products <= most for widest, most in FASTER)


class Masked:
    """The second pass of one device; has the methods of `ByCluster`."""

    def __init__(
        self, entropy: Entropy, cluster_of: np.ndarray, counts: np.ndarray, tables: Tables,
        given: Given,
    ) -> None:  # fmt: skip
        """Multiply.

        Args:
            entropy: which loss.
            cluster_of: int [items of all devices].
            counts: int [K], members of each cluster.
            tables: the part of the clustering that belongs to the given rows.
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
        # Each position is a cluster of its own to `Entropy`, with one position in it.
        self._tile = Tile(of_rows == clusters[:, None], jnp.where(here, own, -1)[:, None])
        products = jnp.einsum("pw,iw->pi", given.query, self._adapted)
        self._logits = entropy.logits(products[:, :, None], self._tile)

    def sums(self) -> Sums:
        """float32 [P], what losses are made of."""
        return jax.tree.map(lambda x: x[:, 0], self._entropy.sums(self._logits, self._tile))

    def losses(self, sums: Sums) -> jax.Array:
        """float32 [P], of the sums of all members; 0 where there is no label."""
        each = self._entropy.losses(jax.tree.map(lambda x: x[:, None], sums), self._counts)
        return jnp.where(self._known, each[:, 0], 0.0)

    def gradients(self, sums: Sums) -> Gradients:
        """Of the losses' weighted sum, from the sums of all members."""
        weights = jnp.where(self._known, self._given.weights, 0.0)
        of_logits = self._entropy.gradients(
            self._logits, self._tile, jax.tree.map(lambda x: x[:, None], sums), self._counts,
            weights[:, None],
        )[:, :, 0].astype(self._adapted.dtype)  # fmt: skip
        # Zero times what is not finite would be no number, in clusters that it does not belong to.
        # In its own cluster the gradient of the logits is none already.
        finite = jnp.where(jnp.isfinite(self._adapted), self._adapted, 0.0)
        of_query = jnp.einsum("pi,iw->pw", of_logits, finite)
        of_adapted = jnp.einsum("pi,pw->iw", of_logits, self._given.query)
        of_adapter, of_rows = self._back(of_adapted)
        return Gradients(of_query, of_rows, of_adapter)

    def both(self) -> tuple[jax.Array, Gradients]:
        """(`losses`, `gradients`), for a device that has all items."""
        sums = self.sums()
        return self.losses(sums), self.gradients(sums)
