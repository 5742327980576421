"""Hierarchical softmax: log p(item) = log p(cluster) + log p(item | cluster).

The first softmax runs over the words and the clusters together, the second over the members of one
cluster. Section 2 of arXiv 2509.03746. The functions here take arrays; `HierarchicalSoftmax` holds
the tables. `within_cluster` is the second pass as one writes it down; what is trained with is
`second.member_losses`, which gives the same and moves far less memory. Letters: P positions, W
width of query and tables (model or item width), V words, I items, K clusters, M slots of the
largest cluster; `...` any leading axes.
"""

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.losses import smoothed_cross_entropy

PAD_LOGIT = -1e30  # finite, so that the empty slots of a cluster never make NaN in a gradient


def first_pass_logits(
    word_logits: jax.Array | None, query: jax.Array, clusters: jax.Array, cap: float | None
) -> jax.Array:
    """Logits of `[words ++ clusters]`.

    Args:
        word_logits: [..., V] without a cap; None where there are no words.
        query: [..., W].
        clusters: [K, W].
        cap: soft cap on the logits; None and 0 are none.

    Returns:
        float32 [..., V + K].
    """
    logits = jnp.einsum("...w,kw->...k", query, clusters)
    if word_logits is not None:
        logits = jnp.concatenate([word_logits, logits], axis=-1)
    return soft_cap(logits.astype(jnp.float32), cap)


def item_logits(query: jax.Array, items: jax.Array, cap: float | None) -> jax.Array:
    """Logits of all items without their clusters: [..., W], [I, W] -> float32 [..., I]."""
    return soft_cap(jnp.einsum("...w,iw->...i", query, items).astype(jnp.float32), cap)


def member_log_probs(logits: jax.Array, valid: jax.Array, cap: float | None) -> jax.Array:
    """log p(item | cluster) of the members of a cluster.

    Args:
        logits: [..., M], without a cap.
        valid: bool [..., M], whether there is a member.
        cap: soft cap on the logits.

    Returns:
        float32 [..., M]. What is no member has no probability: it is left out after the cap, which
        alone would give it one.
    """
    logits = soft_cap(logits.astype(jnp.float32), cap)
    return jax.nn.log_softmax(jnp.where(valid, logits, PAD_LOGIT))


def within_cluster(
    query: jax.Array,
    items: jax.Array,
    members: jax.Array,
    slots: jax.Array,
    cap: float | None,
    smoothing: float,
) -> jax.Array:
    """Cross entropy of the second pass: that of one member among those of its cluster.

    Args:
        query: [P, W].
        items: [I, W].
        members: int [P, M], the cluster of each position's label; below zero is no member.
        slots: int [P], where the label stands in it.
        cap: soft cap on the logits.
        smoothing: probability that the other members share. A cluster of one member is not
            smoothed, where the original divides by zero and gives NaN.

    Returns:
        float32 [P].
    """
    valid = members >= 0
    logits = jnp.einsum("pw,pmw->pm", query, items[jnp.maximum(members, 0)])
    return smoothed_cross_entropy(member_log_probs(logits, valid, cap), slots, smoothing, valid)


def item_scores(
    query: jax.Array, items: jax.Array, clusters: jax.Array, cluster_of: jax.Array
) -> jax.Array:
    """Scores of the whole catalogue, `query . (item + cluster of the item)`, without a cap.

    Args:
        query: [..., W].
        items, clusters: [I, W], [K, W].
        cluster_of: int [I].

    Returns:
        float32 [..., I]. Not log-probabilities: see `normalisers`.
    """
    own = jnp.einsum("...w,iw->...i", query, items)
    shared = jnp.einsum("...w,kw->...k", query, clusters)
    return (own + shared[..., cluster_of]).astype(jnp.float32)


def normalisers(logits: jax.Array, cluster_of: jax.Array, num_clusters: int) -> jax.Array:
    """Log-sum-exp of each cluster's item logits, stable at any magnitude.

    Subtracted from `item_scores` it makes them log-probabilities up to one constant a position.
    (The original's exp overflows where logits pass 88.)

    Args:
        logits: float32 [..., I], of `item_logits`.
        cluster_of: int [I].
        num_clusters: K; none is empty.

    Returns:
        float32 [..., K].
    """
    highest, rest = _normaliser_parts(logits, cluster_of, num_clusters)
    return highest + rest


def item_log_probs(
    first_log_probs: jax.Array,
    query: jax.Array,
    items: jax.Array,
    cluster_of: jax.Array,
    cap: float | None,
) -> jax.Array:
    """log p(item) of all items.

    Args:
        first_log_probs: float32 [..., K], log p(cluster) of the first pass.
        query: [..., W].
        items: [I, W].
        cluster_of: int [I].
        cap: soft cap on the second pass' logits.

    Returns:
        float32 [..., I].
    """
    logits = item_logits(query, items, cap)
    highest, rest = _normaliser_parts(logits, cluster_of, first_log_probs.shape[-1])
    # As in log_softmax the highest logit goes first: large ones leave no digits to the rest.
    return (logits - highest[..., cluster_of]) + (first_log_probs - rest)[..., cluster_of]


def _normaliser_parts(
    logits: jax.Array, cluster_of: jax.Array, num_clusters: int
) -> tuple[jax.Array, jax.Array]:
    """([..., K] highest logit of each cluster, [..., K] what is added to it to normalise)."""
    values = jnp.moveaxis(logits, -1, 0)  # segments are sums of rows
    highest = jax.lax.stop_gradient(jax.ops.segment_max(values, cluster_of, num_clusters))
    total = jax.ops.segment_sum(jnp.exp(values - highest[cluster_of]), cluster_of, num_clusters)
    return jnp.moveaxis(highest, 0, -1), jnp.moveaxis(jnp.log(total), 0, -1)
