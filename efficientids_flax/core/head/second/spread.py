"""The second pass on one device, or on a mesh that shards positions and items.

Each device computes sums over its own items for its own positions. The sums are merged among the
devices that share the positions, then each device computes the gradients of its own rows. Only
arrays of the size of the positions and their queries are communicated (and gradients summed over
the devices that share rows or the adapter); the table itself stays where it is.

Letters: P positions, W width of queries, E width of the table, I items, K clusters, S parts of the
table.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as Spec

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second.by_cluster import ByCluster, Given, Gradients
from efficientids_flax.core.head.second.entropy import Entropy
from efficientids_flax.core.head.second.layout import SMALLEST_TILE, Layout, layout_of
from efficientids_flax.core.head.second.masked import Masked, is_faster
from efficientids_flax.core.head.second.mesh import Split, merged_sums, split_of, summed
from efficientids_flax.core.head.second.visits import Tables, tile_rows

Pass = ByCluster | Masked


def losses(entropy: Entropy, clustering: ClusteringInfo, given: Given) -> jax.Array:
    """Losses, float32 [P]; 0 where there is no label.

    Args:
        entropy: soft cap and smoothing.
        clustering: the cluster of each item.
        given: all arrays.
    """

    def own(pass_: Pass, split: Split) -> jax.Array:
        return pass_.losses(merged_sums(pass_.sums(), split.items))

    return _everywhere(own, entropy, clustering, given, lambda split: Spec(split.positions))


def losses_and_gradients(
    entropy: Entropy, clustering: ClusteringInfo, given: Given
) -> tuple[jax.Array, Gradients]:
    """`losses`, and the gradients of their weighted sum."""

    def own(pass_: Pass, split: Split) -> tuple[jax.Array, Gradients]:
        if not split.items:
            each, found = pass_.both()
        else:
            sums = merged_sums(pass_.sums(), split.items)
            each, found = pass_.losses(sums), pass_.gradients(sums)
        both = (*split.positions, *split.items)
        return each, Gradients(
            summed(found.query, split.items),
            summed(found.rows, split.positions),
            summed(found.adapter, both),
        )

    def lie(split: Split) -> Any:
        own: Any = Gradients  # holds partition specs instead of arrays
        return Spec(split.positions), own(Spec(split.positions), Spec(split.items), Spec())

    return _everywhere(own, entropy, clustering, given, lie)


def _everywhere(
    own: Callable[[Pass, Split], Any],
    entropy: Entropy,
    clustering: ClusteringInfo,
    given: Given,
    lie: Callable[[Split], Any],
) -> Any:
    """Run `own` on each device; `lie` gives the partition specs of its results."""
    split = split_of(given.query.shape[0], given.rows.shape[0])
    if not split.axes:
        layout = layout_of(clustering)
        return own(_pass(entropy, clustering, layout, _tables(layout, 0), given), split)
    layout = layout_of(clustering, split.parts)

    def device(given: Given, tables: Tables) -> Any:
        mine = jax.tree.map(lambda x: x[0], tables)
        return own(_pass(entropy, clustering, layout, mine, given), split)

    of_positions, kind = Spec(split.positions), cast(Any, Given)
    whole = kind(of_positions, Spec(split.items), Spec(), of_positions, of_positions)
    mapped = jax.shard_map(
        device, in_specs=(whole, Spec(split.items)), out_specs=lie(split),
        axis_names=set(split.axes), check_vma=False,
    )  # fmt: skip
    return mapped(given, _tables(layout, slice(None)))


def _pass(
    entropy: Entropy, clustering: ClusteringInfo, layout: Layout, tables: Tables, given: Given
) -> Pass:
    """The faster implementation for this many positions and items.

    With `places` it is always `ByCluster`, since these are used for large tables only.
    """
    width = max(given.query.shape[-1], given.rows.shape[-1])
    products = given.query.shape[0] * given.rows.shape[0]
    if given.places is None and is_faster(width, products):
        return Masked(entropy, clustering.cluster_of, layout.counts, tables, given)
    return ByCluster(entropy, layout, tables, given)


def spare_rows(clustering: ClusteringInfo, width: int) -> int:
    """Padding rows that a table in cluster order needs at its end: the most rows of a tile.

    Args:
        clustering: the cluster of each item.
        width: E, width of the table.
    """
    most = min(int(layout_of(clustering).counts.max()), tile_rows(width))
    return -(-most // SMALLEST_TILE) * SMALLEST_TILE


def tables_of(clustering: ClusteringInfo) -> Tables:
    """The layout's tables for an unsharded item table."""
    return _tables(layout_of(clustering), 0)


def _tables(layout: Layout, part: Any) -> Tables:
    count, items = layout.order.shape
    first = jnp.arange(count, dtype=jnp.int32) * items
    order, slots, starts, sizes = (
        jnp.asarray(table[part])
        for table in (layout.order, layout.slots, layout.starts, layout.sizes)
    )
    return Tables(order, slots, starts, sizes, first[part])
