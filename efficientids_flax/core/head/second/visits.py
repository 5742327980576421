"""The order of computation: blocks of positions that share a cluster.

Positions are sorted by their label's cluster. A block is up to G positions of one cluster, and a
visit computes C blocks at a time. Clusters without labels in the batch have no blocks.

Letters: P positions, I items, K clusters, C blocks of a visit, G positions of a block, M rows of a
tile.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.gathering import in_vectors, take_rows
from efficientids_flax.core.head.second.layout import Layout, SizeClass

# Block sizes are multiples of these: on CPUs padding costs more than odd shapes.
CPU_LEAST_BLOCK, DEVICE_LEAST_BLOCK, LARGEST_BLOCK = 1, 8, 512
# Bytes of rows that a visit gathers: on CPUs what fits a core's cache, elsewhere enough to keep the
# device busy. The second pair bounds one tile; it is large, so that few clusters need several.
CPU_BYTES, DEVICE_BYTES = 1 << 21, 1 << 24
CPU_TILE_BYTES, DEVICE_TILE_BYTES = 1 << 22, 1 << 24
# The same for tables in cluster order, where reading a slice costs less than a gather.
CPU_SLICE_BYTES, MOST_SLICES = 1 << 18, 8
# Products that take as much time as the loop of one more size class. (It also has to be compiled;
# a small catalogue with few positions gets one or two classes, and compiles faster for it.)
LOOP = 1 << 15


class Tables(NamedTuple):
    """One shard of a `Layout`, on its device.

    Attributes:
        order, slots: int [I / S], see `Layout`.
        starts, sizes: int [K], see `Layout`.
        first: int [], id of the shard's first item.
    """

    order: jax.Array
    slots: jax.Array
    starts: jax.Array
    sizes: jax.Array
    first: jax.Array


class Labels(NamedTuple):
    """The label of each position.

    Attributes:
        clusters: int [P], in [0, K); K where there is no label.
        items: int [P], in [0, I).
    """

    clusters: jax.Array
    items: jax.Array


class Sorted(NamedTuple):
    """Positions sorted by cluster.

    Attributes:
        positions: int [P].
        starts, ends: int [K], range of each cluster's positions in `positions`.
        slots: int [P], the label's index among its cluster's members in this shard; -1 if the label
            is in another shard.
    """

    positions: jax.Array
    starts: jax.Array
    ends: jax.Array
    slots: jax.Array


class Visit(NamedTuple):
    """C blocks that are computed together.

    Attributes:
        clusters: int [C], the cluster of each block.
        sizes: int [C], members of the cluster in this shard; 0 for blocks that only pad.
        positions: int [C, G], padded with P.
    """

    clusters: jax.Array
    sizes: jax.Array
    positions: jax.Array


def sort_positions(labels: Labels, tables: Tables) -> Sorted:
    """Sort positions by their label's cluster; positions without a label come into no block."""
    positions = jnp.argsort(labels.clusters, stable=True)
    counts = jnp.zeros(tables.sizes.shape[0], jnp.int32).at[labels.clusters].add(1, mode="drop")
    ends = jnp.cumsum(counts)
    starts = ends - counts
    own = labels.items - tables.first
    here = (own >= 0) & (own < tables.slots.shape[0])
    slots = jnp.where(here, tables.slots[jnp.where(here, own, 0)], -1)
    return Sorted(positions, starts, ends, slots)


def tile_rows(width: int) -> int:
    """The most rows that a tile may have."""
    size = DEVICE_TILE_BYTES if jax.default_backend() != "cpu" else CPU_TILE_BYTES
    return max(8, size // (4 * width))


def worth_of_class(layout: Layout, positions: int, width: int) -> float:
    """Rows of padding that cost as much time as one more class, see `Layout.classes`.

    A row is multiplied with the queries of its cluster, on average those of P / K positions.
    """
    return LOOP * layout.num_clusters / max(positions * width, 1)


class Blocks:
    """The blocks of one size class of clusters."""

    def __init__(
        self,
        layout: Layout,
        tables: Tables,
        of: SizeClass,
        given: Sorted,
        width: int,
        *,
        in_order: bool = False,
    ) -> None:
        """Choose the block size, and count the blocks of each cluster.

        Args:
            layout: layout of the clustering.
            tables: this device's shard of it.
            of: the size class.
            given: the sorted positions.
            width: width of a row; bounds how many rows are gathered at a time.
            in_order: whether the table is in cluster order, not in item order.
        """
        self.kind = of
        self._in_order = in_order
        self._tables, self._given = tables, given
        positions, count = given.positions.shape[0], len(of.clusters)
        members = int(layout.counts[of.clusters].sum())
        # If labels were spread evenly: twice the mean number of labels of a cluster, or the mean
        # plus three deviations. Then most clusters fit one block, with little padding.
        mean = positions * members / int(layout.counts.sum()) / count
        block = max(int(min(2 * mean, mean + 3 * mean**0.5)), 1)
        on_cpu = jax.default_backend() == "cpu"
        least = CPU_LEAST_BLOCK if on_cpu else DEVICE_LEAST_BLOCK
        self._block = min(-(-block // least) * least, LARGEST_BLOCK)
        at_once = DEVICE_BYTES if not on_cpu else CPU_SLICE_BYTES if in_order else CPU_BYTES
        self._together = max(1, min(at_once // (4 * width) // of.rows, count))
        self._clusters = jnp.asarray(of.clusters)
        here = (given.ends - given.starts)[self._clusters]
        self._blocks = -(-here // self._block)
        self._upto = jnp.cumsum(self._blocks)

    @property
    def in_slices(self) -> bool:
        """Whether rows are read as slices: table in cluster order, few clusters in a visit."""
        return self._in_order and self._together <= MOST_SLICES

    @property
    def visits(self) -> jax.Array:
        """Int [], the number of visits that cover all blocks."""
        return -(-self._upto[-1] // self._together)

    def visit(self, number: Any) -> Visit:
        """The blocks of one visit."""
        block = number * self._together + jnp.arange(self._together)
        live = block < self._upto[-1]
        at = jnp.searchsorted(self._upto, block, side="right", method="compare_all")
        at = jnp.minimum(at, len(self.kind.clusters) - 1)
        clusters = self._clusters[at]
        inside = block - (self._upto - self._blocks)[at]  # which block of its cluster
        first = self._given.starts[clusters] + inside * self._block
        places = first[:, None] + jnp.arange(self._block)
        count = self._given.positions.shape[0]
        found = self._given.positions[jnp.minimum(places, count - 1)]
        there = live[:, None] & (places < self._given.ends[clusters][:, None])
        sizes = jnp.where(live, self._tables.sizes[clusters], 0)
        return Visit(clusters, sizes, jnp.where(there, found, count))

    def tiles(self, visit: Visit) -> jax.Array:
        """Int [], number of tiles of the visit's largest cluster."""
        return jnp.max(-(-visit.sizes // self.kind.rows))

    def members(self, visit: Visit, tile: Any) -> jax.Array:
        """Int [C, M], row numbers of a tile's members, from the shard's first row; -1: padding."""
        slots = tile * self.kind.rows + jnp.arange(self.kind.rows)
        found = self._tables.starts[visit.clusters][:, None] + slots
        if not self._in_order:
            found = self._tables.order[jnp.minimum(found, self._tables.order.shape[0] - 1)]
        return jnp.where(slots < visit.sizes[:, None], found, -1)

    def taken(self, table: jax.Array, visit: Visit, tile: Any) -> jax.Array:
        """The rows of a tile, from a table [I, E]: [C M, E]; padding reads arbitrary rows."""
        if self.in_slices:
            first = self._tables.starts[visit.clusters] + tile * self.kind.rows
            parts = [
                jax.lax.dynamic_slice_in_dim(table, first[number], self.kind.rows)
                for number in range(self._together)
            ]
            return in_vectors(jnp.concatenate(parts))
        rows = jnp.maximum(self.members(visit, tile).reshape(-1), 0)
        return take_rows(table, rows)

    def labels(self, visit: Visit, tile: Any) -> jax.Array:
        """Int [C, G], index of each label in a tile; outside [0, M) if it is not in this tile."""
        slots = take(self._given.slots, visit.positions, -1)
        return jnp.where(slots < 0, -1, slots - tile * self.kind.rows)


def take(values: jax.Array, at: jax.Array, fill: Any = 0) -> jax.Array:
    """Values at positions; `fill` at padding (numbers out of range)."""
    return take_rows(values, at, fill)
