"""In which order positions and clusters are taken: blocks of positions that share a cluster.

Positions are sorted by their label's cluster. A block is up to G of them in one cluster, and a
visit takes some blocks at a time. A cluster that nobody asks for has none.

Letters: P positions, I items, K clusters, C blocks of a visit, G positions of a block, M rows of a
tile.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.gathering import in_vectors, take_rows
from efficientids_flax.core.head.second.layout import Layout, SizeClass

# Blocks of positions are multiples of these: CPUs lose more by empty places than by odd shapes.
CPU_LEAST_BLOCK, DEVICE_LEAST_BLOCK, LARGEST_BLOCK = 1, 8, 512
# Bytes of rows that a visit gathers: on CPUs what stays in a core's cache, elsewhere what fills a
# device. A tile may have as many rows as make the second, so that few clusters need several.
CPU_BYTES, DEVICE_BYTES = 1 << 21, 1 << 24
CPU_TILE_BYTES, DEVICE_TILE_BYTES = 1 << 22, 1 << 24
# Of rows that lie in the layout's order, where a slice costs less than a gathering.
CPU_SLICE_BYTES, MOST_SLICES = 1 << 18, 8


class Tables(NamedTuple):
    """One part of a layout, on its device.

    Attributes:
        order, slots: int [I / S].
        starts, sizes: int [K].
        first: int [], the part's first item.
    """

    order: jax.Array
    slots: jax.Array
    starts: jax.Array
    sizes: jax.Array
    first: jax.Array


class Labels(NamedTuple):
    """What the label of each position is.

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
        starts, ends: int [K], where those of a cluster stand.
        slots: int [P], of the label among the members of this part; -1 where it is in another.
    """

    positions: jax.Array
    starts: jax.Array
    ends: jax.Array
    slots: jax.Array


class Visit(NamedTuple):
    """Some blocks.

    Attributes:
        clusters: int [C].
        sizes: int [C], members of the cluster in this part; 0 where there is no block.
        positions: int [C, G]; P where there are no more.
    """

    clusters: jax.Array
    sizes: jax.Array
    positions: jax.Array


def sort_positions(labels: Labels, tables: Tables) -> Sorted:
    """Sort positions by cluster; those without a label are in no block."""
    positions = jnp.argsort(labels.clusters, stable=True)
    counts = jnp.zeros(tables.sizes.shape[0], jnp.int32).at[labels.clusters].add(1, mode="drop")
    ends = jnp.cumsum(counts)
    starts = ends - counts
    own = labels.items - tables.first
    here = (own >= 0) & (own < tables.slots.shape[0])
    slots = jnp.where(here, tables.slots[jnp.where(here, own, 0)], -1)
    return Sorted(positions, starts, ends, slots)


def tile_rows(width: int) -> int:
    """Rows that a tile may have."""
    size = DEVICE_TILE_BYTES if jax.default_backend() != "cpu" else CPU_TILE_BYTES
    return max(8, size // (4 * width))


class Blocks:
    """The blocks of one class of clusters."""

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
        """Count them.

        Args:
            layout: of the clustering.
            tables: the part of it.
            of: the class.
            given: positions.
            width: numbers of a row; how many rows are gathered at a time depends on it.
            in_order: whether rows lie in the order of the layout, and not in that of the items.
        """
        self.kind = of
        self._in_order = in_order
        self._tables, self._given = tables, given
        positions, count = given.positions.shape[0], len(of.clusters)
        members = int(layout.counts[of.clusters].sum())
        # Of labels that are spread evenly, twice the mean or three deviations more than it: most
        # clusters fill one block, and not much of it is empty.
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
        """Whether few clusters are visited at a time, and the rows of each are one slice."""
        return self._in_order and self._together <= MOST_SLICES

    @property
    def visits(self) -> jax.Array:
        """Int [], how many visits take all blocks."""
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
        """Int [], tiles of the largest cluster of a visit."""
        return jnp.max(-(-visit.sizes // self.kind.rows))

    def members(self, visit: Visit, tile: Any) -> jax.Array:
        """Int [C, M], the rows of a tile, counted from the part's first; -1 is none."""
        slots = tile * self.kind.rows + jnp.arange(self.kind.rows)
        found = self._tables.starts[visit.clusters][:, None] + slots
        if not self._in_order:
            found = self._tables.order[jnp.minimum(found, self._tables.order.shape[0] - 1)]
        return jnp.where(slots < visit.sizes[:, None], found, -1)

    def taken(self, table: jax.Array, visit: Visit, tile: Any) -> jax.Array:
        """[C M, E], of a table [I, E] the rows of a tile; any rows where there is no member."""
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
        """Int [C, G], the rows of the labels in a tile; outside of [0, M) where they are not."""
        slots = take(self._given.slots, visit.positions, -1)
        return jnp.where(slots < 0, -1, slots - tile * self.kind.rows)


def take(values: jax.Array, at: jax.Array, fill: Any = 0) -> jax.Array:
    """Values of positions; `fill` where there is none."""
    return take_rows(values, at, fill)
