"""How positions and items are sharded over the mesh, and the collectives between devices.

Letters: P positions, I items.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from efficientids_flax.core.head.second.entropy import Sums
from efficientids_flax.sharding import ACTIVATIONS, AXES, partition


class Split(NamedTuple):
    """The mesh axes over which positions and items are sharded.

    Attributes:
        positions, items: names of the axes that shard them.
        axes: names of all mesh axes that this package uses; empty if there is nothing to shard.
        parts: S, number of shards of the items.
    """

    positions: tuple[str, ...]
    items: tuple[str, ...]
    axes: tuple[str, ...]
    parts: int = 1


def split_of(positions: int, items: int) -> Split:
    """How the mesh of `jax.set_mesh` shards this many positions and items; no mesh, no sharding."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Auto and name in AXES
    )
    sizes = {name: mesh.shape[name] for name in axes}
    if all(size == 1 for size in sizes.values()):
        return Split((), (), ())
    axes_of = (("B", positions), ("I", items))
    of_positions, of_items = (
        () if part is None else (part,) if isinstance(part, str) else tuple(part)
        for part in partition(axes_of, ACTIVATIONS, sizes)
    )
    return Split(of_positions, of_items, axes, math.prod(sizes[name] for name in of_items))


def merged_sums(sums: Sums, axes: tuple[str, ...]) -> Sums:
    """Merge each device's sums over its own members into the sums over all members."""
    if not axes:
        return sums
    highest = jax.lax.pmax(sums.highest, axes)
    exponentials = sums.exponentials * jnp.exp(sums.highest - highest)
    exponentials, total, own = summed((exponentials, sums.total, sums.own), axes)
    return Sums(highest, exponentials, total, own)


def summed(x: Any, axes: tuple[str, ...]) -> Any:
    """Sum arrays over the devices along mesh axes (`psum`)."""
    return jax.lax.psum(x, axes) if axes else x
