"""Softmax over keys, optionally with one extra logit that belongs to no key.

Letters: B batch, T queries, S keys, N heads.
"""

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def softmax(logits: jax.Array, extra: float | None = None) -> jax.Array:
    """`jax.nn.softmax` over the last axis that stores only its result for the backward pass.

    JAX's own stores the exponentials too, which doubles the memory.

    Args:
        logits: any shape.
        extra: one extra logit, whose probability is dropped (Praxis `attention_extra_logit`).
    """
    if extra is None:
        return jax.nn.softmax(logits, axis=-1)
    largest = jnp.maximum(jnp.max(logits, axis=-1, keepdims=True), extra)
    powers = jnp.exp(logits - largest)
    return powers / (jnp.sum(powers, axis=-1, keepdims=True) + jnp.exp(extra - largest))


@softmax.defjvp
def _softmax_jvp(
    extra: float | None, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (logits,), (tangent,) = primals, tangents
    probs = softmax(logits, extra)
    weighted = probs * tangent
    return probs, weighted - probs * jnp.sum(weighted, axis=-1, keepdims=True)


def softmax_beside(logits: jax.Array, sinks: jax.Array) -> jax.Array:
    """Softmax over the last axis and one extra logit per head, whose probability is dropped.

    Args:
        logits: float32 [B, N, T, S].
        sinks: float32 [N].
    """
    beside = sinks[:, None, None]
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.max(logits, -1, keepdims=True), beside))
    powers = jnp.exp(logits - largest)
    return powers / (jnp.sum(powers, axis=-1, keepdims=True) + jnp.exp(beside - largest))
