"""Which rows of the item table the loss of a batch has gradients by.

Letters: B batch, T time, I items.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import Touched, places_for, touched_by

Batch = Mapping[str, Any]


def touched_rows(config: EfficientIDSConfig, clustering: ClusteringInfo, batch: Batch) -> Touched:
    """The members of the clusters of labels with a weight, and the items of the input.

    Args:
        config: of the model; not of a full softmax, which has gradients by all items.
        clustering: where each item belongs.
        batch: see `ItemModel.loss`, all [B, T].
    """
    given = {name: jnp.asarray(value) for name, value in batch.items()}
    labels = given["labels"]
    counts = given["weights"] > 0
    if "label_item_weights" in given:
        counts &= given["label_item_weights"] > 0
    inputs = given["ids"]
    if config.backbone.vocab_size:
        inputs = jnp.where(given["input_item_weights"] > 0, inputs, -1)
    return touched_by(clustering, _only(labels, counts), inputs.reshape(-1))


def most_touched(clustering: ClusteringInfo, batch: Batch) -> int:
    """As many rows as a batch of these shapes may touch."""
    return places_for(clustering, batch["labels"].size, batch["ids"].size)


def _only(ids: jax.Array, where: jax.Array) -> jax.Array:
    return jnp.where(where, ids, -1).reshape(-1)
