"""Weighted means that add up over batches, not all of which need have all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Means:
    """Weighted sums of named numbers; `a + b` joins batches.

    Attributes:
        sums: name -> float32 [], weighted.
        weights: name -> float32 [], of the batches that have it.
        weight: float32 [], of all batches.
    """

    sums: dict[str, jax.Array]
    weights: dict[str, jax.Array]
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
            dict.fromkeys(values, weight),
            weight,
        )

    def __add__(self, other: Means) -> Means:
        sums, weights = added(self.sums, other.sums), added(self.weights, other.weights)
        return Means(sums, weights, self.weight + other.weight)

    def compute(self) -> dict[str, jax.Array]:
        """Name -> mean over the batches that have it; NaN without any weight."""
        return {
            name: value / jnp.where(self.weights[name] > 0, self.weights[name], jnp.nan)
            for name, value in self.sums.items()
        }


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The sums by name; a name that only one has keeps its value."""
    both = {name: one[name] + other[name] for name in one.keys() & other.keys()}
    return {**one, **other, **both}
