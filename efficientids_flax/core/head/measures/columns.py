"""Sums and maxima over the slots of columns, and the exp in them, as fast as vector units go.

Letters: Q positions, N columns of R slots.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LOWEST, HIGHEST = -126.0, 128.0  # exponents of float32 numbers that are not subnormal, and of inf
# 2^f = 1 + c1 f + c2 f^2 + ... for |f| <= 1/2: relative error 2e-9, least at its largest.
POWERS_OF_TWO = (
    0.6931471824645996,
    0.24022647738456726,
    0.055503323674201965,
    0.009618418291211128,
    0.00133989448659122,
    0.00015358268865384161,
)
BITS = 23  # of a float32's fraction
INTEGER = np.float32(1.5 * 2.0**BITS)  # added to an integer it leaves that in the lowest bits


def over_slots(term: Callable[[int], jax.Array], slots: int, when: Any) -> jax.Array:
    """Sum of term(slot), [N, Q], over the slots of columns; 0 where it is not asked for.

    The compiler's own reduction adds floats one after the other; so slots are added here, each for
    all Q at once, by one loop. What reads the sum is not joined with that loop, as it is in a
    branch.

    Args:
        term: slot of a column -> [N, Q].
        slots: R.
        when: bool [], not known to the compiler.
    """

    def total() -> jax.Array:
        found = term(0)
        for slot in range(1, slots):
            found = found + term(slot)
        return found

    made = jax.eval_shape(lambda: term(0))
    return jax.lax.cond(when, total, lambda: jnp.zeros(made.shape, made.dtype))


def highest(values: jax.Array) -> jax.Array:
    """[N, R, Q] -> [N, Q], on its own: over both axes at once no vector unit would take it."""
    return jax.lax.optimization_barrier(jnp.max(values, axis=1))


def power(exponent: jax.Array) -> jax.Array:
    """exp(exponent), float32, within 1.5 ulp of that of `exponent * log2(e)` in float32.

    2^n 2^f with an integer n and |f| <= 1/2, of which the first is written into the bits of the
    second. inf and NaN are as exp's; what would be subnormal or zero is 2^-126.
    """
    exponent = exponent * np.float32(1.0 / np.log(2.0))
    # Comparisons, so that NaN remains.
    exponent = jnp.where(exponent < LOWEST, LOWEST, exponent)
    exponent = jnp.where(exponent > HIGHEST, HIGHEST, exponent)
    whole = jax.lax.round(exponent, jax.lax.RoundingMethod.TO_NEAREST_EVEN)
    fraction = exponent - whole
    found = jnp.full_like(fraction, POWERS_OF_TWO[-1])
    for factor in (*POWERS_OF_TWO[-2::-1], 1.0):
        found = found * fraction + np.float32(factor)
    moved = jax.lax.bitcast_convert_type(whole + INTEGER, jnp.int32) << BITS
    return jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(found, jnp.int32) + moved, jnp.float32
    )
