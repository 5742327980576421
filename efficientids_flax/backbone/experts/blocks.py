"""Loops over rows that are sorted by expert: over experts with rows, and over blocks of their rows.

Letters: M places of sorted rows, X experts.
"""

from typing import Any

import jax
import jax.numpy as jnp

LEAST, MOST = 4, 256  # rows of a block: fewer make slow products, more would be padding
PARTS = 4  # a block has this many small ones, which are used for the rest of an expert's rows


def rows_of_block(places: int, experts: int) -> int:
    """Rows of a block: about the mean number of rows of an expert."""
    share = max(places // experts, 1)
    return min(max(1 << (share.bit_length() - 1), LEAST), MOST)


def over_experts(sizes: jax.Array, one: Any, state: Any, starts: jax.Array | None = None) -> Any:
    """Fold `state = one(expert, first place, size, state)` over all experts with rows, in order."""
    starts = jnp.cumsum(sizes) - sizes if starts is None else starts
    order = jnp.argsort(sizes == 0, stable=True)

    def step(number: jax.Array, state: Any) -> Any:
        group = order[number]
        return one(group, starts[group], sizes[group], state)

    return jax.lax.fori_loop(0, jnp.sum(sizes > 0), step, state)


def over_blocks(start: jax.Array, size: jax.Array, block: int, run: Any, state: Any) -> Any:
    """Fold `state = run(rows, first place, rows left, state)` over blocks of an expert's places.

    Uses whole blocks, and small ones for a rest of up to half a block.
    """
    small = block // PARTS
    whole = (size + block // 2 - 1) // block
    rest = jnp.maximum(size - whole * block, 0)

    def walk(rows: int, first: jax.Array, count: jax.Array, state: Any) -> Any:
        def step(number: jax.Array, state: Any) -> Any:
            done = first + number * rows
            return run(rows, start + done, size - done, state)

        return jax.lax.fori_loop(0, count, step, state)

    state = walk(block, jnp.zeros_like(size), whole, state)
    return walk(small, whole * block, (rest + small - 1) // small, state)
