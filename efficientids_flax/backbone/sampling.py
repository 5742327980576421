"""Sampling of the next token from logits, with the filters of HuggingFace's `generate`.

Letters: B batch, V words.
"""

from collections.abc import Collection
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from efficientids_flax.config.record import Record, positive


@dataclass(frozen=True)
class SamplingConfig(Record):
    """Greedy by default; otherwise temperature, then top-k, then top-p.

    Attributes:
        temperature: divides the logits; 0: greedy.
        top_k: keep the k most probable tokens, and those that tie with the last; None: all.
        top_p: keep the most probable tokens, as many as reach this total probability.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def problems(self) -> Collection[str]:
        """Ranges; filters belong to sampling."""
        found = positive(self, "top_k", "top_p")
        if self.temperature < 0:
            found.append(f"temperature: expected at least 0, found {self.temperature}")
        if self.top_p is not None and self.top_p > 1:
            found.append(f"top_p: expected at most 1, found {self.top_p}")
        if self.temperature == 0:
            found += [
                f"{name}: needs a temperature above 0, which greedy decoding has not"
                for name in ("top_k", "top_p")
                if getattr(self, name) is not None
            ]
        return found


def sample(logits: jax.Array, config: SamplingConfig, rng: jax.Array) -> jax.Array:
    """Draw one token for each row.

    Args:
        logits: [B, V].
        config: how to sample.
        rng: random key; not used by greedy decoding.

    Returns:
        int32 [B].
    """
    if config.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.random.categorical(rng, filtered(logits, config)).astype(jnp.int32)


def filtered(logits: jax.Array, config: SamplingConfig) -> jax.Array:
    """Logits after temperature and filters: float32 [B, V], -inf for tokens filtered out."""
    values = logits.astype(jnp.float32) / config.temperature
    if config.top_k is not None and config.top_k < values.shape[-1]:
        values = keep_top_k(values, config.top_k)
    if config.top_p is not None and config.top_p < 1:
        values = keep_top_p(values, config.top_p)
    return values


def keep_top_k(logits: jax.Array, count: int) -> jax.Array:
    """[B, V] with -inf below the `count`-th highest of each row."""
    lowest = jax.lax.top_k(logits, count)[0][..., -1:]
    return jnp.where(logits < lowest, -jnp.inf, logits)


def keep_top_p(logits: jax.Array, share: float) -> jax.Array:
    """[B, V] with -inf for the least likely tokens, with total probability at most `1 - share`.

    The likeliest token always stays. Of equally likely tokens at the border the later ones stay.
    """
    order = jnp.argsort(logits, axis=-1)
    ascending = jnp.take_along_axis(logits, order, axis=-1)
    tail = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1)
    out = (tail <= 1 - share).at[..., -1].set(False)
    ranks = jnp.argsort(order, axis=-1)  # inverse of the permutation
    return jnp.where(jnp.take_along_axis(out, ranks, axis=-1), -jnp.inf, logits)
