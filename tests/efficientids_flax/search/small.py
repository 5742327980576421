"""A small model, sequences, and losses of both that the tests of this folder share."""

from functools import cache

import jax
import numpy as np

from efficientids_flax.config import BackboneConfig
from efficientids_flax.search import Samples
from tests.efficientids_flax.backbone.small_decoders import made

WORDS = 13
# Untied, with biases: whatever momentum can tell of, it has.
CONFIG = BackboneConfig(
    vocab_size=WORDS, num_layers=2, model_dims=12, hidden_dims=16, num_heads=2, num_kv_heads=2,
    head_dim=6, tied_embeddings=False, lm_head_bias=True, qkv_bias=True, attention_out_bias=True,
    mlp_bias=True, norm="layer_norm", norm_bias=True, position_embedding="sinusoidal",
    activation="relu",
)  # fmt: skip


@cache
def sequences(count: int = 24, length: int = 7) -> Samples:
    """Random words, each of which has the next for a label."""
    rows = np.random.default_rng(3).integers(0, WORDS, (count, length + 1))
    weights = np.ones((count, length), np.float32)
    weights[0, 3:] = 0.0
    return Samples({"ids": rows[:, :-1], "labels": rows[:, 1:], "weights": weights})


def grown(config: BackboneConfig, by: float = 4.0) -> dict:
    """Parameters of a model whose logits and scores are large enough for a cap to show."""
    return jax.tree.map(lambda leaf: np.float32(by) * np.asarray(leaf), made(config))
