"""Hierarchical softmax: log p(item) = log p(cluster) + log p(item | cluster).

The first softmax runs over the words and the clusters together, the second over the members of one
cluster. Section 2 of arXiv 2509.03746. Letters: B batch, T time, W width of query and tables (model
or item width), V words, I items, K clusters, M slots of the largest cluster.
"""

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap

PAD_LOGIT = -1e9  # finite, so that the empty slots of a cluster never make NaN in a gradient


def first_pass_logits(
    word_logits: jax.Array | None, query: jax.Array, clusters: jax.Array, cap: float | None
) -> jax.Array:
    """Logits of `[words ++ clusters]`.

    Args:
        word_logits: [B, T, V] without a cap; None where there are no words.
        query: [B, T, W].
        clusters: [K, W].
        cap: soft cap on the logits.

    Returns:
        float32 [B, T, V + K].
    """
    logits = jnp.einsum("btw,kw->btk", query, clusters)
    if word_logits is not None:
        logits = jnp.concatenate([word_logits, logits], axis=-1)
    return soft_cap(logits.astype(jnp.float32), cap)


def member_logits(
    query: jax.Array, items: jax.Array, members: jax.Array, cap: float | None
) -> jax.Array:
    """Logits of the members of one cluster a position.

    Args:
        query: [B, T, W].
        items: [I, W].
        members: int [B, T, M], item ids; below zero where there is none.
        cap: soft cap on the logits.

    Returns:
        float32 [B, T, M]; `PAD_LOGIT` where there is no member, with a cap too.
    """
    logits = jnp.einsum("btw,btmw->btm", query, items[jnp.maximum(members, 0)])
    return jnp.where(members >= 0, soft_cap(logits.astype(jnp.float32), cap), PAD_LOGIT)


def smoothed_cross_entropy(
    log_probs: jax.Array, labels: jax.Array, smoothing: float, valid: jax.Array | None = None
) -> jax.Array:
    """Cross entropy against a target of `1 - smoothing`, the rest shared by the other classes.

    Args:
        log_probs: float32 [B, T, C].
        labels: int [B, T]; outside of [0, C) gives 0.
        smoothing: probability that the other classes share.
        valid: bool [B, T, C], classes that exist; None for all.

    Returns:
        float32 [B, T]. A class without others is not smoothed, where the original divides by zero
        and gives NaN.
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


def item_scores(
    query: jax.Array, items: jax.Array, clusters: jax.Array, cluster_of: jax.Array
) -> jax.Array:
    """Scores of the whole catalogue, `query . (item + cluster of the item)`.

    Args:
        query: [B, T, W].
        items, clusters: [I, W], [K, W].
        cluster_of: int [I].

    Returns:
        float32 [B, T, I]. Not log-probabilities: see `normalisers`.
    """
    own = jnp.einsum("btw,iw->bti", query, items)
    return (own + jnp.einsum("btw,kw->btk", query, clusters)[..., cluster_of]).astype(jnp.float32)


def normalisers(
    query: jax.Array, items: jax.Array, cluster_of: jax.Array, num_clusters: int
) -> jax.Array:
    """Log-sum-exp of the item logits of each cluster, stable at any magnitude.

    Subtracted from `item_scores` it makes them log-probabilities up to one constant a position.
    (The original's exp overflows where logits pass 88.)

    Returns:
        float32 [B, T, K].
    """
    logits = jnp.einsum("btw,iw->bti", query, items).astype(jnp.float32)

    def one(values: jax.Array) -> jax.Array:
        highest = jax.ops.segment_max(values, cluster_of, num_clusters)
        total = jax.ops.segment_sum(jnp.exp(values - highest[cluster_of]), cluster_of, num_clusters)
        return highest + jnp.log(total)

    return jax.vmap(jax.vmap(one))(logits)
