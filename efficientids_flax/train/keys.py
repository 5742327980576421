"""Random keys, typed or not, and the numbers in them, which checkpoints store."""

from typing import Any

import jax
import jax.numpy as jnp


def is_key(value: Any) -> bool:
    """Whether it is a typed key, which holds no numbers that NumPy can read."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def key_data(rng: Any) -> jax.Array:
    """The uint32 data of a key, typed or not."""
    return jax.random.key_data(rng) if is_key(rng) else jnp.asarray(rng, jnp.uint32)


def run_key(rng: Any) -> jax.Array:
    """A typed key of JAX' default kind from a key of any kind; one of that kind stays the same.

    Raises:
        ValueError: it is no key.
    """
    if is_key(rng) and jax.random.key_impl(rng) != jax.random.key_impl(jax.random.key(0)):
        rng = jax.random.bits(rng, key_data(jax.random.key(0)).shape)
    try:
        return jax.random.wrap_key_data(key_data(rng))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"rng: expected a key, as jax.random.key(0), found {rng!r}") from error


def like_key(data: jax.Array, key: Any) -> jax.Array:
    """A key of the same kind as another one from its data; other arrays stay as they are."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)) if is_key(key) else data
