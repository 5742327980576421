"""Hierarchical softmax: log p(item) = log p(cluster) + log p(item | cluster).

The first softmax runs over the words and the clusters together, the second over the members of one
cluster. Section 2 of arXiv 2509.03746. The functions here take arrays; `HierarchicalSoftmax` holds
the tables. `within_cluster` is the textbook form of the second pass. Training uses
`second.member_losses`, which gives the same losses and moves far less memory. Letters: P positions,
W width of query and tables (model or item width), V words, I items, K clusters, M slots of the
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
        word_logits: [..., V] before the soft cap; None if the model has no words.
        query: [..., W].
        clusters: [K, W].
        cap: soft cap on the logits; None or 0: no cap.

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
        logits: [..., M], before the soft cap.
        valid: bool [..., M], False for padding slots.
        cap: soft cap on the logits.

    Returns:
        float32 [..., M]. Padding slots have probability zero: they are masked after the cap, which
        would otherwise lift them to -cap.
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
    """Cross entropy of the second pass: each label among the members of its cluster.

    Args:
        query: [P, W].
        items: [I, W].
        members: int [P, M], the members of the label's cluster; negative ids are padding.
        slots: int [P], the label's index in its row of `members`.
        cap: soft cap on the logits.
        smoothing: probability mass that the other members share. Clusters with one member are not
            smoothed; the original divides by zero there and gives NaN.

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

    `item_scores` minus these are log-probabilities up to one constant for each position. (The
    original's exp overflows for logits above 88.)

    Args:
        logits: float32 [..., I], from `item_logits`.
        cluster_of: int [I].
        num_clusters: K; no cluster may be empty.

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
    # As in log_softmax, subtract the highest logit first: added to a large logit, the small terms
    # would be rounded away.
    return (logits - highest[..., cluster_of]) + (first_log_probs - rest)[..., cluster_of]


def _normaliser_parts(
    logits: jax.Array, cluster_of: jax.Array, num_clusters: int
) -> tuple[jax.Array, jax.Array]:
    """Each cluster's highest logit and logsumexp minus it, both [..., K]."""
    values = jnp.moveaxis(logits, -1, 0)  # segment_sum works along the first axis
    highest = jax.lax.stop_gradient(jax.ops.segment_max(values, cluster_of, num_clusters))
    total = jax.ops.segment_sum(jnp.exp(values - highest[cluster_of]), cluster_of, num_clusters)
    return jnp.moveaxis(highest, 0, -1), jnp.moveaxis(jnp.log(total), 0, -1)
