"""The second pass on one device, or on a mesh: positions split among its axes, items too.

Each device has its own positions and its own items. It makes the sums of its items for its
positions, the sums are merged among the devices that share the positions, and each makes the
gradients of its own rows. What goes between devices is as large as the positions and their
queries; the table stays where it lies.

Letters: P positions, W width of queries, E width of the table, I items, K clusters, S parts of the
table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as Spec

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second.by_cluster import ByCluster, Given, Gradients
from efficientids_flax.core.head.second.entropy import Entropy, Sums
from efficientids_flax.core.head.second.layout import Layout, layout_of
from efficientids_flax.core.head.second.visits import Tables
from efficientids_flax.sharding import ACTIVATIONS, AXES, partition


class _Split(NamedTuple):
    """Among which axes of the mesh positions and items are split, and all that are ours."""

    positions: tuple[str, ...]
    items: tuple[str, ...]
    axes: tuple[str, ...]


def losses(entropy: Entropy, clustering: ClusteringInfo, given: Given) -> jax.Array:
    """Losses, float32 [P]; 0 where there is no label.

    Args:
        entropy: which loss.
        clustering: where each item belongs.
        given: all arrays.
    """

    def own(pass_: ByCluster, split: _Split) -> jax.Array:
        return pass_.losses(_merged(pass_.sums(), split.items))

    return _everywhere(own, entropy, clustering, given, lambda split: Spec(split.positions))


def losses_and_gradients(
    entropy: Entropy, clustering: ClusteringInfo, given: Given
) -> tuple[jax.Array, Gradients]:
    """The same, and the gradients of the losses' weighted sum."""

    def own(pass_: ByCluster, split: _Split) -> tuple[jax.Array, Gradients]:
        if not split.items:
            each, found = pass_.both()
        else:
            sums = _merged(pass_.sums(), split.items)
            each, found = pass_.losses(sums), pass_.gradients(sums)
        both = (*split.positions, *split.items)
        return each, Gradients(
            _summed(found.query, split.items),
            _summed(found.rows, split.positions),
            _summed(found.adapter, both),
        )

    def lie(split: _Split) -> Any:
        own: Any = Gradients  # of specifications in place of arrays
        return Spec(split.positions), own(Spec(split.positions), Spec(split.items), Spec())

    return _everywhere(own, entropy, clustering, given, lie)


def _everywhere(
    own: Callable[[ByCluster, _Split], Any],
    entropy: Entropy,
    clustering: ClusteringInfo,
    given: Given,
    lie: Callable[[_Split], Any],
) -> Any:
    """`own` on each device; `lie` says how its results lie."""
    split = _split(given)
    if not split.axes:
        layout = layout_of(clustering)
        return own(ByCluster(entropy, layout, _tables(layout, 0), given), split)
    sizes = jax.sharding.get_abstract_mesh().shape
    parts = 1
    for name in split.items:
        parts *= sizes[name]
    layout = layout_of(clustering, parts)

    def device(given: Given, tables: Tables) -> Any:
        mine = jax.tree.map(lambda x: x[0], tables)
        return own(ByCluster(entropy, layout, mine, given), split)

    of_positions, kind = Spec(split.positions), cast(Any, Given)
    whole = kind(of_positions, Spec(split.items), Spec(), of_positions, of_positions)
    mapped = jax.shard_map(
        device, in_specs=(whole, Spec(split.items)), out_specs=lie(split),
        axis_names=set(split.axes), check_vma=False,
    )  # fmt: skip
    return mapped(given, _tables(layout, slice(None)))


def _split(given: Given) -> _Split:
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Auto and name in AXES
    )
    sizes = {name: mesh.shape[name] for name in axes}
    if all(size == 1 for size in sizes.values()):
        return _Split((), (), ())
    axes_of = (("B", given.query.shape[0]), ("I", given.rows.shape[0]))
    positions, items = (
        () if part is None else (part,) if isinstance(part, str) else tuple(part)
        for part in partition(axes_of, ACTIVATIONS, sizes)
    )
    return _Split(positions, items, axes)


def _tables(layout: Layout, part: Any) -> Tables:
    count, items = layout.order.shape
    first = jnp.arange(count, dtype=jnp.int32) * items
    order, slots, starts, sizes = (
        jnp.asarray(table[part])
        for table in (layout.order, layout.slots, layout.starts, layout.sizes)
    )
    return Tables(order, slots, starts, sizes, first[part])


def _merged(sums: Sums, axes: tuple[str, ...]) -> Sums:
    """The sums of all members, from those of each device."""
    if not axes:
        return sums
    highest = jax.lax.pmax(sums.highest, axes)
    exponentials = sums.exponentials * jnp.exp(sums.highest - highest)
    exponentials, total, own = _summed((exponentials, sums.total, sums.own), axes)
    return Sums(highest, exponentials, total, own)


def _summed(x: Any, axes: tuple[str, ...]) -> Any:
    return jax.lax.psum(x, axes) if axes else x
