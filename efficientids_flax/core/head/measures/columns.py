"""Vectorised sums and maxima over the slots of columns, and a fast exp for them.

Letters: Q positions, N columns of R slots.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

LOWEST, HIGHEST = -126.0, 128.0  # exponents of the smallest normal float32, and of inf
# 2^f = 1 + c1 f + c2 f^2 + ... for |f| <= 1/2: minimax, relative error at most 2e-9.
POWERS_OF_TWO = (
    0.6931471824645996,
    0.24022647738456726,
    0.055503323674201965,
    0.009618418291211128,
    0.00133989448659122,
    0.00015358268865384161,
)
BITS = 23  # bits of a float32's fraction
INTEGER = np.float32(1.5 * 2.0**BITS)  # x + INTEGER has the integer x in its lowest bits


def over_slots(term: Callable[[int], jax.Array], slots: int, when: Any) -> jax.Array:
    """Sum of term(slot), [N, Q], over the slots of columns; 0 if not `when`.

    XLA's reduction on CPUs adds floats one by one. This sum is unrolled over the slots, each added
    for all Q at once, in one vectorised loop. The branch keeps XLA from fusing that loop with
    whatever reads the sum.

    Args:
        term: slot of a column -> [N, Q].
        slots: R.
        when: bool [], whether to compute it; must not be a constant at compile time.
    """

    def total() -> jax.Array:
        found = term(0)
        for slot in range(1, slots):
            found = found + term(slot)
        return found

    made = jax.eval_shape(lambda: term(0))
    return jax.lax.cond(when, total, lambda: jnp.zeros(made.shape, made.dtype))


def highest(values: jax.Array) -> jax.Array:
    """[N, R, Q] -> [N, Q], behind a barrier: fused with a maximum over N it would not vectorise."""
    return jax.lax.optimization_barrier(jnp.max(values, axis=1))


def power(exponent: jax.Array) -> jax.Array:
    """exp(exponent), float32, within 1.5 ulp of 2 to the power of float32 `exponent * log2(e)`.

    Computed as 2^n 2^f with an integer n and |f| <= 1/2; n is added to the exponent bits of 2^f.
    inf and NaN are as for exp; results that would be subnormal or zero are 2^-126.
    """
    exponent = exponent * np.float32(1.0 / np.log(2.0))
    # Not jnp.clip: with comparisons NaN remains NaN.
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
