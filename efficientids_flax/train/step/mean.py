"""Weighted means that add up over batches."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Means:
    """Weighted sums of named numbers; `a + b` joins batches.

    Attributes:
        sums: name -> float32 [], weighted.
        weight: float32 [].
    """

    sums: dict[str, jax.Array]
    weight: jax.Array

    @classmethod
    def of(cls, values: Mapping[str, jax.Array], weight: jax.Array) -> Means:
        """Sums of one batch; with weight 0 its values are ignored, even NaN."""
        weight = jnp.asarray(weight, jnp.float32)
        return cls(
            {
                name: jnp.where(weight == 0, 0.0, value.astype(jnp.float32) * weight)
                for name, value in values.items()
            },
            weight,
        )

    def __add__(self, other: Means) -> Means:
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> dict[str, jax.Array]:
        """Name -> mean; NaN without any weight."""
        divisor = jnp.where(self.weight > 0, self.weight, jnp.nan)
        return {name: value / divisor for name, value in self.sums.items()}
