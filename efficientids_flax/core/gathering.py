"""Rows of a table by their numbers, at the pace of the memory on CPUs too.

XLA's CPU compiler writes the copy of a row as a loop over its numbers. LLVM unrolls a short loop
wholly, number by number, and a row of 64 floats then takes 150 instructions: so many that the
processor waits for each row in turn instead of asking memory for several at once. That is 3 to 9
times as slow as the same loop in vectors, into which LLVM makes what it does not unroll.

Letters: E width of the table, I its rows.
"""

import jax
import jax.numpy as jnp

# A loop of fewer instructions is unrolled. What a copy has of them for each number, and the widths
# from which on its unrolled loop is slow and up to which it is unrolled at all.
UNROLLED, COPIED = 304, 4
NARROWEST, WIDEST = 38, 79


def take_rows(table: jax.Array, at: jax.Array, fill: float | None = None) -> jax.Array:
    """`jnp.take(table, at, axis=0)`.

    Args:
        table: [I, E].
        at: int [...], numbers of rows.
        fill: what a number out of range gives; None: it is clipped into the range.

    Returns:
        [..., E].
    """
    if fill is None:
        return in_vectors(jnp.take(table, at, axis=0, mode="clip"))
    return in_vectors(jnp.take(table, at, axis=0, mode="fill", fill_value=fill))


@jax.custom_jvp
def in_vectors(rows: jax.Array) -> jax.Array:
    """The same rows [..., E], bit for bit, which a CPU copies in vectors."""
    width = rows.shape[-1]
    slow = rows.dtype == jnp.float32 and NARROWEST <= width <= WIDEST
    if not slow or jax.default_backend() != "cpu":
        return rows
    nothing = jax.lax.optimization_barrier(jnp.int32(0))
    bits = jax.lax.bitcast_convert_type(rows, jnp.int32)
    for number in range(-(-UNROLLED // width) - COPIED):  # as many instructions as are missing
        bits = bits ^ nothing if number % 2 == 0 else bits + nothing
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


in_vectors.defjvps(lambda tangent, _, rows: tangent)
