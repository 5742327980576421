"""Sums over the slots of columns, and the exp in them."""

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.head.measures.columns import over_slots, power


def test_power_is_exp():
    asked = np.linspace(-87, 88, 100_003, dtype=np.float32)
    found = np.asarray(jax.jit(power)(asked), np.float64)
    # log2(e) and its product are rounded, half an ulp of the exponent each; 1.5 of the result.
    allowed = np.log(2) * 2.0**-23 * np.abs(asked * np.log2(np.e)) + 1.5 * 2.0**-23
    assert (np.abs(found / np.exp(asked.astype(np.float64)) - 1) < allowed).all()


def test_power_at_the_ends():
    asked = jnp.asarray([-1e30, -np.inf, 0.0, 89.0, 1e30, np.inf, np.nan], jnp.float32)
    found = np.asarray(jax.jit(power)(asked))
    np.testing.assert_array_equal(
        found, np.asarray([2**-126, 2**-126, 1, np.inf, np.inf, np.inf, np.nan], np.float32)
    )


def test_over_slots():
    values = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)

    @jax.jit
    def summed(values, when):
        return over_slots(lambda slot: jnp.square(values[:, slot]), values.shape[1], when)

    # Five numbers of float32, added in any order.
    np.testing.assert_allclose(summed(values, True), np.square(values).sum(1), rtol=1e-6)
    np.testing.assert_array_equal(summed(values, False), np.zeros((3, 7)))
