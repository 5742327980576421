"""Among which devices positions and items are split, and what goes between them.

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
    """Among which axes of the mesh positions and items are split, and all that are ours.

    Attributes:
        positions, items, axes: names.
        parts: S, into how many parts the items are split.
    """

    positions: tuple[str, ...]
    items: tuple[str, ...]
    axes: tuple[str, ...]
    parts: int = 1


def split_of(positions: int, items: int) -> Split:
    """How the mesh of `jax.set_mesh` splits so many positions and items; not at all without one."""
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
    """The sums of all members, from those of each device."""
    if not axes:
        return sums
    highest = jax.lax.pmax(sums.highest, axes)
    exponentials = sums.exponentials * jnp.exp(sums.highest - highest)
    exponentials, total, own = summed((exponentials, sums.total, sums.own), axes)
    return Sums(highest, exponentials, total, own)


def summed(x: Any, axes: tuple[str, ...]) -> Any:
    """The sums of arrays over the devices along some axes."""
    return jax.lax.psum(x, axes) if axes else x
