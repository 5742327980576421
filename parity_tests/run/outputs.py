"""Computes what the original reports besides its losses from the results of our recommender.

Letters: B batch, T time, V words, I items.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.metrics import correct_predictions, ranking_sums, token_sums
from efficientids_flax.losses import LanguageModelLoss

SHORTLIST = 10  # number of top ranks that are recorded
FULL = "full_logits"  # an intermediate value: the logits of the full softmax in training
Batch = Mapping[str, jax.Array]


def recommender_outputs(
    config: EfficientIDSConfig,
    batch: Batch,
    made: Any,
    scores: jax.Array,
    intermediates: Mapping[str, Any],
    train: bool,
) -> dict[str, jax.Array]:
    """Outputs of the recommender, as `outputs/<name>` with the original's names.

    Args:
        config: configuration of the model.
        batch: its inputs.
        made: `LossOutput`.
        scores: [B, T, V + I], from `evaluation_logits`.
        intermediates: values of the same run; they include the training logits of a full softmax.
        train: whether it is a training run.
    """
    logits = intermediates[FULL][0] if train and config.full_softmax else scores
    is_item = batch["label_item_weights"] > 0
    labels = batch["labels"]
    weights = batch["weights"].astype(jnp.float32)
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    found = {
        "logits": logits,
        "log_probs": jax.nn.log_softmax(logits),
        "per_example_argmax": best,
        # The original compares classes with labels not shifted by V, so only words can be correct
        # here.
        "accuracy": jnp.sum((best == labels) * weights) / jnp.maximum(jnp.sum(weights), 1e-6),
        "aux_loss_weight": jnp.asarray(float(config.z_loss_weight > 0)),
        "labels": labels + jnp.where(is_item, config.backbone.vocab_size, 0),
        "top10_indices": jax.lax.top_k(scores, min(SHORTLIST, scores.shape[-1]))[1],
    }
    found |= {name: value for name, value in made._asdict().items() if name not in found}
    return {f"outputs/{name}": value for name, value in found.items()}


def recommender_metrics(
    config: EfficientIDSConfig, batch: Batch, made: Any, outputs: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Metrics of the recommender, as `metrics/<name>/{value,weight}` like the original's.

    Args:
        config: configuration of the model.
        batch: its inputs.
        made: `LossOutput`.
        outputs: result of `recommender_outputs`.
    """
    logits, words = outputs["outputs/logits"], config.backbone.vocab_size
    labels, is_item = batch["labels"], batch["label_item_weights"]
    correct = correct_predictions(logits, labels, is_item, num_words=words)
    tokens = token_sums(
        made.per_example_xent, batch["weights"], aux_loss=made.aux_loss, correct=correct
    ).compute()
    ranking = ranking_sums(logits, labels, is_item, num_words=words).compute()
    one, count = jnp.ones(()), made.total_weight
    weight = {"aux_loss": one, "num_predictions": one}
    found = {name: (value, weight.get(name, count)) for name, value in tokens.items()}
    found |= {
        name: (value, jnp.sum(is_item.astype(jnp.float32))) for name, value in ranking.items()
    }
    parts = {}
    for name, (value, weight_of) in found.items():
        parts |= {f"metrics/{name}/value": value, f"metrics/{name}/weight": weight_of}
    return parts


def masked_metrics(loss: LanguageModelLoss, batch: Batch) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Name -> (value, weight) of each metric that Praxis' `BertModel` reports."""
    weights, count, one = batch["weights"], loss.total_weight, jnp.ones(())
    hits = jnp.sum((loss.per_example_argmax == batch["labels"]) * weights)
    found = {
        "total_loss": (loss.total_loss, count),
        "avg_xent": (loss.avg_xent, count),
        "aux_loss": (loss.aux_loss, count),
        "log_pplx": (loss.avg_xent, count),
        "fraction_of_correct_preds": (hits / jnp.maximum(count, 1), count),
        "num_predictions": (count, one),
    }
    if "paddings" in batch:
        found["num_tokens"] = (jnp.sum(1.0 - batch["paddings"]), one)
    if "segment_ids" in batch:
        found["num_seqs"] = (jnp.sum(jnp.max(batch["segment_ids"], axis=1) * 1.0), one)
    return found
