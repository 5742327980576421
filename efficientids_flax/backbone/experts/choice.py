"""Selection of each token's experts and their weights, without dropping tokens (gating 'top_k').

HuggingFace's routers, such as `MixtralTopKRouter` and `DeepseekV3TopkRouter`. Letters: B batch, T
time, X experts, K experts of a token, G groups of experts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.config import MoEConfig

BEST = 2  # the score of a group is the sum of its best experts' scores


class Choice(NamedTuple):
    """The experts of each token.

    Attributes:
        experts: int [B, T, K], the best first.
        weights: float32 [B, T, K], weights of the experts' outputs.
    """

    experts: jax.Array
    weights: jax.Array


def choose(logits: jax.Array, config: MoEConfig, bias: jax.Array | None = None) -> Choice:
    """The experts of each token.

    Args:
        logits: float32 [B, T, X], from the router.
        config: how experts are scored and weighted.
        bias: float32 [X], added to the scores for the selection only, not for the weights.
    """
    scores = logits
    if config.scores == "softmax":
        scores = jax.nn.softmax(logits, axis=-1)
    elif config.scores == "sigmoid":
        scores = jax.nn.sigmoid(logits)
    wanted = scores if bias is None else scores + bias
    if config.choice_groups > 1:
        wanted = jnp.where(_in_chosen_groups(wanted, config), wanted, -jnp.inf)
    experts = jax.lax.top_k(jax.lax.stop_gradient(wanted), config.experts_per_token)[1]
    weights = jnp.take_along_axis(scores, experts, axis=-1)
    if config.scores == "chosen_softmax":
        weights = jax.nn.softmax(weights, axis=-1)
    if config.renormalize:
        weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-20)
    return Choice(experts, weights * config.weights_scale)


def _in_chosen_groups(wanted: jax.Array, config: MoEConfig) -> jax.Array:
    """Whether an expert is in one of the token's best groups: bool [B, T, X]."""
    groups = wanted.reshape(*wanted.shape[:-1], config.choice_groups, -1)
    score = jnp.sum(jax.lax.top_k(groups, BEST)[0], axis=-1)  # [B, T, G]
    best = jax.lax.top_k(score, config.groups_per_token)[1]
    chosen = jnp.any(best[..., None] == jnp.arange(config.choice_groups), axis=-2)
    return jnp.repeat(chosen, groups.shape[-1], axis=-1)


def balance_loss(logits: jax.Array, experts: jax.Array, valid: jax.Array) -> jax.Array:
    """Load-balance loss of a layer: K if its tokens are distributed evenly, more if not.

    Equations 4 to 6 of Switch Transformer (arXiv 2101.03961), for one layer. (transformers' own
    `load_balancing_loss_func` multiplies the means over all layers.)

    Args:
        logits: float32 [B, T, X].
        experts: int [B, T, K].
        valid: float32 [B, T], 0 for padding.

    Returns:
        float32 [].
    """
    count = logits.shape[-1]
    total = jnp.maximum(jnp.sum(valid), 1.0)
    sent = jnp.sum(jax.nn.one_hot(experts, count) * valid[..., None, None], axis=(0, 1, 2)) / total
    share = jnp.sum(jax.nn.softmax(logits, axis=-1) * valid[..., None], axis=(0, 1)) / total
    return count * jnp.sum(sent * share)
