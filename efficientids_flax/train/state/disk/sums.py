"""A checksum of each leaf of a checkpoint, to detect flipped bits when it is read.

With the bits of a leaf as integers x_i of up to 32 bits, its sum is the sum of x_i w_i modulo 2^32.
The weights w_i are odd, so that any change of a single value is detected, and differ by place, so
that swapped values are detected. Integer sums do not depend on the order: the sum is the same on
any device, however the leaf is sharded over devices and processes.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.train.state.placement import of_each

AT_ONCE = 1 << 20  # values of a host array that are summed at a time
SHOWN = 3  # leaves that an error names


def sums_of(leaves: Mapping[str, Any]) -> dict[str, int]:
    """Path -> sum of each leaf; all processes must call it."""
    placed = {path: leaf for path, leaf in leaves.items() if isinstance(leaf, jax.Array)}
    found = of_each(_on_device, placed)
    found |= {
        path: _on_host(np.asarray(leaf)) for path, leaf in leaves.items() if path not in found
    }
    return {path: int(found[path]) for path in leaves}


def differing(leaves: Mapping[str, Any], wanted: Mapping[str, int]) -> str | None:
    """A message about leaves whose sums differ from those written; None if none does.

    Args:
        leaves: path -> leaf, as read.
        wanted: path -> sum; leaves without one are not compared.
    """
    found = sums_of({path: leaf for path, leaf in leaves.items() if path in wanted})
    wrong = [path for path, value in found.items() if value != wanted[path]]
    if not wrong:
        return None
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return f"{', '.join(wrong[:SHOWN])}{more}: not the numbers that were written"


@jax.jit
def _on_device(leaf: jax.Array) -> jax.Array:
    bits = _bits(leaf)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):  # a reshape would move sharded data
        place = place * jnp.uint32(size % 2**32) + jax.lax.broadcasted_iota(
            jnp.uint32, bits.shape, axis
        )
    return jnp.sum(bits * _weights(place), dtype=jnp.uint32)


def _on_host(leaf: np.ndarray) -> int:
    """The sum of a host array, computed in parts."""
    flat = np.ascontiguousarray(leaf).reshape(-1)
    if flat.dtype == bool:
        flat = flat.astype(np.uint8)
    bits, total = flat.view(f"u{min(flat.dtype.itemsize, 4)}"), 0
    for first in range(0, bits.size, AT_ONCE):
        part = bits[first : first + AT_ONCE].astype(np.uint32)
        place = np.arange(first, first + part.size, dtype=np.uint64).astype(np.uint32)
        total += int(np.sum(part * _weights(place), dtype=np.uint64))
    return total % 2**32


def _bits(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    width = min(leaf.dtype.itemsize, 4)
    return jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * width}")).astype(jnp.uint32)


def _weights(place: Any) -> Any:
    """An odd uint32 weight for each place: the finaliser of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        place = (place ^ (place >> np.uint32(shift))) * np.uint32(factor)
    return (place ^ (place >> np.uint32(16))) | np.uint32(1)
