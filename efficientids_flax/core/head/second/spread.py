"""The second pass on one device, or on a mesh: positions split among its axes, items too.

Each device has its own positions and its own items. It makes the sums of its items for its
positions, the sums are merged among the devices that share the positions, and each makes the
gradients of its own rows. What goes between devices is as large as the positions and their
queries; the table stays where it lies.

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
        entropy: which loss.
        clustering: where each item belongs.
        given: all arrays.
    """

    def own(pass_: Pass, split: Split) -> jax.Array:
        return pass_.losses(merged_sums(pass_.sums(), split.items))

    return _everywhere(own, entropy, clustering, given, lambda split: Spec(split.positions))


def losses_and_gradients(
    entropy: Entropy, clustering: ClusteringInfo, given: Given
) -> tuple[jax.Array, Gradients]:
    """The same, and the gradients of the losses' weighted sum."""

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
        own: Any = Gradients  # of specifications in place of arrays
        return Spec(split.positions), own(Spec(split.positions), Spec(split.items), Spec())

    return _everywhere(own, entropy, clustering, given, lie)


def _everywhere(
    own: Callable[[Pass, Split], Any],
    entropy: Entropy,
    clustering: ClusteringInfo,
    given: Given,
    lie: Callable[[Split], Any],
) -> Any:
    """`own` on each device; `lie` says how its results lie."""
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
    """The way that is faster for a device's positions and items.

    Gradients that go to places of their own are for large tables.
    """
    width = max(given.query.shape[-1], given.rows.shape[-1])
    products = given.query.shape[0] * given.rows.shape[0]
    if given.places is None and is_faster(width, products):
        return Masked(entropy, clustering.cluster_of, layout.counts, tables, given)
    return ByCluster(entropy, layout, tables, given)


def spare_rows(clustering: ClusteringInfo, width: int) -> int:
    """Rows that have to be behind a table in the layout's order: the most that a tile has.

    Args:
        clustering: where each item belongs.
        width: of the table's rows, E.
    """
    most = min(int(layout_of(clustering).counts.max()), tile_rows(width))
    return -(-most // SMALLEST_TILE) * SMALLEST_TILE


def tables_of(clustering: ClusteringInfo) -> Tables:
    """The members of each cluster, as they are on one device."""
    return _tables(layout_of(clustering), 0)


def _tables(layout: Layout, part: Any) -> Tables:
    count, items = layout.order.shape
    first = jnp.arange(count, dtype=jnp.int32) * items
    order, slots, starts, sizes = (
        jnp.asarray(table[part])
        for table in (layout.order, layout.slots, layout.starts, layout.sizes)
    )
    return Tables(order, slots, starts, sizes, first[part])
