"""The original recommender's softmax on Praxis, after the description of EfficientIDs; for timing.

It only has what the published experiments use: the input network everywhere, fixed cluster vectors,
two softmaxes, and the scores of the whole catalogue for the arg max reported at every step.
"""
from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from praxis import base_layer, pax_fiddle, py_utils
from praxis.layers import activations, embedding_softmax, linears


class ItemSoftmax(embedding_softmax.SharedEmbeddingSoftmax):
    """A softmax over words and items; all ids and labels are items, as in the benchmark's batch.

    Attributes:
        num_items, num_clusters, item_dims: sizes.
        tables: `cluster_of` [I], `slot_of` [I], `members` [K, M], `means` [K, E].
    """

    num_items: int = 0
    num_clusters: int = 0
    item_dims: int = 0
    tables: Any = None

    def setup(self) -> None:
        super().setup()
        self.create_child(
            "logits_ffn_item",
            pax_fiddle.Config(
                linears.FeedForward,
                input_dims=self.item_dims,
                output_dims=self.num_items,
                has_bias=False,
                activation_tpl=pax_fiddle.Config(activations.Identity),
            ),
        )
        self.create_child(
            "item_input_dnn",
            pax_fiddle.Config(
                linears.FeedForward,
                input_dims=self.item_dims,
                output_dims=self.input_dims,
                activation_tpl=pax_fiddle.Config(activations.GELU),
            ),
        )

    def emb_lookup(self, ids):
        """The rows of the items through the input network; every id is that of an item."""
        words = super().emb_lookup(ids)
        rows = jnp.transpose(self.logits_ffn_item.linear.theta.w)[ids]
        return jnp.where(ids[..., None] >= 0, self.item_input_dnn(rows), words)

    def __call__(
        self, inputs, class_weights, class_ids=None, class_probabilities=None, input_ids=None
    ):
        labels = jnp.squeeze(class_ids, -1)
        items = self.item_input_dnn(jnp.transpose(self.logits_ffn_item.linear.theta.w))
        clusters = self.item_input_dnn(jnp.asarray(self.tables["means"], jnp.float32))
        own = jnp.asarray(self.tables["cluster_of"])[labels]
        words = self.get_logits(inputs)
        logits = jnp.concatenate([words, jnp.einsum("btd,kd->btk", inputs, clusters)], -1)
        first = _entropy(logits, words.shape[-1] + own)

        members = jnp.asarray(self.tables["members"])[own]
        logits = jnp.einsum("btd,btmd->btm", inputs, items[jnp.maximum(members, 0)])
        logits = jnp.where(members >= 0, logits, -1e30)
        entropy = first + _entropy(logits, jnp.asarray(self.tables["slot_of"])[labels])

        vectors = items + clusters[jnp.asarray(self.tables["cluster_of"])]
        scores = jax.lax.stop_gradient(jnp.einsum("btd,id->bti", inputs, vectors))
        best = jnp.argmax(scores, -1)
        weights = jnp.squeeze(class_weights, -1)
        total = jnp.sum(weights)
        return py_utils.NestedMap(
            logits=scores,
            per_example_argmax=best,
            per_example_xent=entropy,
            total_xent=jnp.sum(entropy * weights),
            total_weight=total,
            avg_xent=jnp.sum(entropy * weights) / (total + 1e-6),
            accuracy=jnp.sum((best == labels) * weights) / total,
        )


def _entropy(logits, classes):
    """Minus the log-probability of a class."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), classes[..., None], -1)
    return -jnp.squeeze(chosen, -1)


def random_tables(items: int, clusters: int, width: int) -> dict[str, np.ndarray]:
    """Partition the items at random into clusters of nearly equal size."""
    rng = np.random.default_rng(0)
    cluster_of = (rng.permutation(items) % clusters).astype(np.int32)
    slots = -(-items // clusters)
    members = np.full((clusters, slots), -1, np.int32)
    slot_of = np.zeros(items, np.int32)
    for cluster in range(clusters):
        inside = np.flatnonzero(cluster_of == cluster)
        members[cluster, : len(inside)] = inside
        slot_of[inside] = np.arange(len(inside))
    means = rng.normal(size=(clusters, width)).astype(np.float32)
    return {"cluster_of": cluster_of, "slot_of": slot_of, "members": members, "means": means}
