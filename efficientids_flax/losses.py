"""Losses of a language model: smoothed cross entropy, z-loss, and the metrics that Praxis reports.

Computes what Praxis' `FullSoftmax`, `TransformerLm.compute_loss` and `LanguageModel.compute_loss`
compute. Letters: B batch, T time, C classes, V words.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.array_checks import FLOATS, described, form_problems, label_problems
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.record import listed

TINY_WEIGHT = 1e-6  # Praxis adds it to the total weight before dividing by it


class LanguageModelLoss(NamedTuple):
    """What Praxis' `TransformerLm` returns if it is given labels; float32 unless noted.

    Attributes:
        total_loss: [], what is minimised: `avg_xent + aux_loss`.
        avg_xent, avg_xent_weight: [], `total_xent / (total_weight + 1e-6)` and the weight, or what
            the configuration averages over.
        aux_loss, aux_loss_weight: [], sum and number of the auxiliary losses.
        total_xent, total_weight: [], weighted sum of the entropies, and sum of the weights.
        per_example_xent: [B, T], unweighted.
        per_token_xent: [B, T], weighted.
        per_sequence_xent: [B], sum of `per_token_xent`.
        per_example_argmax: int32 [B, T].
        accuracy: [], weighted share of labels that are the argmax; 0 if all weights are 0 (where
            Praxis divides by zero).
        z_loss: [], weighted as configured; included in `aux_loss`.
        logits, log_probs: [B, T, V], in the dtype of the logits.
    """

    total_loss: jax.Array
    avg_xent: jax.Array
    avg_xent_weight: jax.Array
    aux_loss: jax.Array
    aux_loss_weight: jax.Array
    total_xent: jax.Array
    total_weight: jax.Array
    per_example_xent: jax.Array
    per_token_xent: jax.Array
    per_sequence_xent: jax.Array
    per_example_argmax: jax.Array
    accuracy: jax.Array
    z_loss: jax.Array
    logits: jax.Array
    log_probs: jax.Array


def language_model_loss(
    config: BackboneConfig,
    logits: jax.Array,
    batch: Mapping[str, jax.Array],
    aux_losses: Any = (),
    train: bool = True,
) -> LanguageModelLoss:
    """Loss of a language model from its logits.

    Args:
        config: gives V, label smoothing and the weight of the z-loss.
        logits: [B, T, V], scaled and capped, any float dtype; the softmax is float32.
        batch: `labels` int [B, T], in [0, V) where they have a weight, and `weights` [B, T].
        aux_losses: any pytree of losses, such as the collection `aux_losses` of the decoder's
            experts; all leaves are added, each with weight one.
        train: whether labels are smoothed (otherwise only with `label_smoothing_in_eval`).

    Raises:
        ValueError: naming everything that is wrong (values are checked only outside of jit).
    """
    _check(config, logits, batch)
    labels = jnp.asarray(batch["labels"])
    weights = jnp.asarray(batch["weights"]).astype(jnp.float32)
    values = logits.astype(jnp.float32)
    log_probs = jax.nn.log_softmax(values)
    smoothing = config.label_smoothing if train or config.label_smoothing_in_eval else 0.0
    entropy = smoothed_cross_entropy(log_probs, labels, smoothing)
    argmax = jax.lax.stop_gradient(jnp.argmax(values, axis=-1)).astype(jnp.int32)
    every = config.loss_average == "positions"
    positions = jnp.asarray(labels.size, jnp.float32) if every else None
    own = None
    if config.z_loss_weight > 0 or every:  # Praxis' GShard softmax always reports one
        own = config.z_loss_weight * z_loss(values, weights, positions)
    hits = jnp.sum((argmax == labels) * weights)
    return LanguageModelLoss(
        **summed(entropy, weights, aux_losses, own, count=positions),
        avg_xent_weight=jnp.sum(weights) if positions is None else positions,
        per_example_argmax=argmax,
        accuracy=_ratio(hits, jnp.sum(weights)),
        logits=logits,
        log_probs=log_probs.astype(logits.dtype),
    )


def _check(config: BackboneConfig, logits: jax.Array, batch: Mapping[str, Any]) -> None:
    """Raise ValueError if logits and labels do not fit the model and each other."""
    shape, words = jnp.shape(logits), config.vocab_size
    if len(shape) != 3 or shape[-1] != words:
        problems = [f"logits: found {described(logits)}, expected [B, T, {words}]"]
    else:
        problems = form_problems("logits", logits, FLOATS, None, "")
    fields = {name: batch.get(name) for name in ("labels", "weights")}
    problems += [f"{name}: missing" for name, value in fields.items() if value is None]
    problems += label_problems(fields, shape[:-1], "that of the logits without words", 0, words)
    if problems:
        raise ValueError(listed("the loss of a language model", problems))


def summed(
    entropy: jax.Array,
    weights: jax.Array,
    aux_losses: Any,
    z_loss: jax.Array | None,
    average: jax.Array | None = None,
    count: jax.Array | None = None,
) -> dict[str, jax.Array]:
    """The loss and its parts, under Praxis' names.

    Args:
        entropy: float32 [..., T], cross entropy of each label.
        weights: float32 [..., T]; entropies with weight 0 are ignored, even if infinite.
        aux_losses: any pytree of further losses; all leaves are added.
        z_loss: [], weighted; None: no z-loss.
        average: [], weighted mean of the entropies, if known; None: it is computed.
        count: [], divisor for that mean; None: the sum of the weights.
    """
    per_token = weighted(entropy, weights)
    total, total_weight = jnp.sum(per_token), jnp.sum(weights)
    if average is None:
        average = total / (total_weight + TINY_WEIGHT if count is None else count)
    leaves = [jnp.asarray(leaf, jnp.float32) for leaf in jax.tree.leaves((aux_losses, z_loss))]
    auxiliary = sum(map(jnp.sum, leaves), jnp.zeros((), jnp.float32))
    return {
        "total_loss": average + auxiliary,
        "avg_xent": average,
        "aux_loss": auxiliary,
        "aux_loss_weight": jnp.asarray(sum(leaf.size for leaf in leaves), jnp.float32),
        "total_xent": total,
        "total_weight": total_weight,
        "per_example_xent": entropy,
        "per_token_xent": per_token,
        "per_sequence_xent": jnp.sum(per_token, axis=-1),
        "z_loss": jnp.zeros((), jnp.float32) if z_loss is None else z_loss,
    }


def weighted(entropy: jax.Array, weights: jax.Array) -> jax.Array:
    """`entropy * weights`, any shape; 0 where the weight is 0, even if the entropy is infinite."""
    return jnp.where(weights > 0, entropy, 0.0) * weights


def language_model_metrics(
    loss: LanguageModelLoss, batch: Mapping[str, jax.Array]
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """(value, weight) of each metric that Praxis' `LanguageModel` reports, by its name.

    Args:
        loss: from `language_model_loss`.
        batch: the same batch.
    """
    weights = batch["weights"].astype(jnp.float32)
    hits = jnp.sum((loss.per_example_argmax == batch["labels"]) * weights)
    count, one = loss.total_weight, jnp.ones((), jnp.float32)
    averaged = loss.avg_xent_weight
    return {
        "total_loss": (loss.total_loss, count),
        "avg_xent": (loss.avg_xent, averaged),
        "aux_loss": (loss.aux_loss, one),
        "log_pplx": (loss.avg_xent, averaged),
        "fraction_of_correct_next_step_preds": (hits / jnp.maximum(count, 1), count),
        "num_predictions": (count, one),
    }


def smoothed_cross_entropy(
    log_probs: jax.Array, labels: jax.Array, smoothing: float, valid: jax.Array | None = None
) -> jax.Array:
    """Cross entropy against a target of `1 - smoothing`; the other classes share the rest equally.

    Args:
        log_probs: float32 [B, T, C].
        labels: int [B, T]; outside [0, C) the result is 0.
        smoothing: probability mass that the other classes share.
        valid: bool [B, T, C], classes that exist; None: all.

    Returns:
        float32 [B, T]. If there is only one class, nothing is smoothed; the original divides by
        zero there and gives NaN.
    """
    count = log_probs.shape[-1]
    inside = (labels >= 0) & (labels < count)
    index = jnp.where(inside, labels, 0)[..., None]
    own = jnp.take_along_axis(log_probs, index, axis=-1)[..., 0]
    if not smoothing:
        return jnp.where(inside, -own, 0.0)
    every = jnp.full(own.shape, count) if valid is None else jnp.sum(valid, axis=-1)
    total = jnp.sum(log_probs if valid is None else jnp.where(valid, log_probs, 0.0), axis=-1)
    others = jnp.maximum(every - 1, 1)
    smoothed = (1.0 - smoothing) * own + smoothing / others * (total - own)
    return jnp.where(inside, -jnp.where(every > 1, smoothed, own), 0.0)


def z_loss(logits: jax.Array, weights: jax.Array, count: jax.Array | None = None) -> jax.Array:
    """Weighted mean of the squared logsumexp, which keeps logits from drifting.

    Args:
        logits: [B, T, C].
        weights: [B, T].
        count: [], divisor of the sum; None: the sum of the weights.

    Returns:
        float32 []; 0 if all weights are 0 (where Praxis divides by zero).
    """
    return squared_normalisers(
        jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1), weights, count
    )


def squared_normalisers(
    normalisers: jax.Array, weights: jax.Array, count: jax.Array | None = None
) -> jax.Array:
    """`z_loss` from given logsumexps [B, T]."""
    weights = weights.astype(jnp.float32)
    squares = jnp.square(normalisers)
    return _ratio(jnp.sum(squares * weights), jnp.sum(weights) if count is None else count)


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """A quotient; 0 if the denominator is 0, also with a finite gradient."""
    some = below > 0
    return jnp.where(some, above / jnp.where(some, below, 1.0), 0.0)
