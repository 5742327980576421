"""A small recommender with every option that its scores depend on."""

from typing import Any

import jax
import numpy as np

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel

BACKBONE = BackboneConfig(
    vocab_size=11,
    num_layers=1,
    model_dims=8,
    hidden_dims=16,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    lm_head_bias=True,
    position_embedding="learned",
    max_positions=20,
)
CONFIG = EfficientIDSConfig(
    num_items=30, item_embedding_dim=4, num_clusters=5, trainable_cluster_embeddings=True,
    use_correction=True, soft_cap_logits=4.0, backbone=BACKBONE,
)  # fmt: skip
PLACES = ClusteringInfo.from_assignments(np.random.default_rng(0).permutation(30) % 5)
HISTORIES = [[3, 17, 29], [0], [5, 5, 4, 3, 2, 1, 0, 9, 8]]


def filled(model: Any, batch: Any, scale: float = 1.0) -> Any:
    """Parameters of normal values, far apart enough that scores differ."""
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), batch, method="head_inputs")["params"]
    )
    rng = np.random.default_rng(1)
    return jax.device_put(
        jax.tree.map(lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes)
    )


def fields(ids: list[int], items: list[int]) -> dict[str, np.ndarray]:
    """A batch of one sequence, all of it prefix."""
    rows = {"ids": ids, "input_item_weights": items, "inputs_indicator": [1] * len(ids)}
    return {name: np.array([row]) for name, row in rows.items()}


MODEL = EfficientIDSModel(CONFIG, PLACES)
PARAMS = filled(MODEL, fields([0, 1], [0, 1]))
