"""Which rows of the item table get gradients from the loss of a batch.

Letters: B batch, T time, I items.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.batch import as_arrays
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import Touched, places_for, touched_by

Batch = Mapping[str, Any]


def touched_rows(config: EfficientIDSConfig, clustering: ClusteringInfo, batch: Batch) -> Touched:
    """The rows that get gradients: members of the clusters of weighted labels, and input items.

    Args:
        config: the model's; not for a full softmax, which gives gradients to all items.
        clustering: the cluster of each item.
        batch: see `ItemModel.loss`, all [B, T].
    """
    given = as_arrays(batch)
    labels = given["labels"]
    counts = given["weights"] > 0
    if "label_item_weights" in given:
        counts &= given["label_item_weights"] > 0
    inputs = given["ids"]
    if config.backbone.vocab_size:
        inputs = jnp.where(given["input_item_weights"] > 0, inputs, -1)
    return touched_by(clustering, _only(labels, counts), inputs.reshape(-1))


def most_touched(clustering: ClusteringInfo, batch: Batch) -> int:
    """The most rows that a batch of these shapes can touch."""
    return places_for(clustering, batch["labels"].size, batch["ids"].size)


def _only(ids: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.where(where, ids, -1).reshape(-1)
