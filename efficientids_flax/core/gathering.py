"""Gather rows of a table at memory bandwidth, on CPUs too.

XLA's CPU compiler writes the copy of a row as a loop over its numbers. LLVM unrolls a short loop
completely, number by number: a row of 64 floats takes 150 instructions. That is so many that the
processor waits for each row instead of loading several at once, and it is 3 to 9 times slower than
the vectorised loop that LLVM makes if it does not unroll. So here the loop is made longer, by
instructions without effect.

Letters: E width of the table, I its rows.
"""

import jax
import jax.numpy as jnp

# LLVM unrolls loops below UNROLLED instructions; a copy has COPIED for each number. Rows narrower
# than NARROWEST are fast although unrolled; rows wider than WIDEST are not unrolled.
UNROLLED, COPIED = 304, 4
NARROWEST, WIDEST = 38, 79


def take_rows(table: jax.Array, at: jax.Array, fill: float | None = None) -> jax.Array:
    """`jnp.take(table, at, axis=0)`.

    Args:
        table: [I, E].
        at: int [...], numbers of rows.
        fill: value of rows whose number is out of range; None: such numbers are clipped.

    Returns:
        [..., E].
    """
    if fill is None:
        return in_vectors(jnp.take(table, at, axis=0, mode="clip"))
    return in_vectors(jnp.take(table, at, axis=0, mode="fill", fill_value=fill))


@jax.custom_jvp
def in_vectors(rows: jax.Array) -> jax.Array:
    """The same rows [..., E], bit for bit, computed such that a CPU copies them in vectors."""
    width = rows.shape[-1]
    slow = rows.dtype == jnp.float32 and NARROWEST <= width <= WIDEST
    if not slow or jax.default_backend() != "cpu":
        return rows
    nothing = jax.lax.optimization_barrier(jnp.int32(0))
    bits = jax.lax.bitcast_convert_type(rows, jnp.int32)
    for number in range(-(-UNROLLED // width) - COPIED):  # enough instructions to not be unrolled
        bits = bits ^ nothing if number % 2 == 0 else bits + nothing
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


in_vectors.defjvps(lambda tangent, _, rows: tangent)
