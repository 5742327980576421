"""What the head computes from a query and the tables: losses, scores, log-probabilities.

Letters: D width of the hidden states, W of query and tables (D or E), E item width, V words, I
items, K clusters, M slots of the largest cluster; `...` any leading axes, mostly B batch and T
time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.clustering import PADDING, ClusteringInfo
from efficientids_flax.core.head.full_softmax import Classes, chunked_cross_entropy
from efficientids_flax.core.head.hierarchical import (
    first_pass_logits,
    item_log_probs,
    item_logits,
    item_scores,
    normalisers,
)
from efficientids_flax.core.head.passed import HeadInputs, LossOutput
from efficientids_flax.core.head.sampled import Labels as SampledLabels
from efficientids_flax.core.head.sampled import sampled_losses
from efficientids_flax.core.head.second import AS_IT_IS, Adapter, Entropy, Labels, member_losses
from efficientids_flax.losses import (
    TINY_WEIGHT,
    smoothed_cross_entropy,
    squared_normalisers,
    summed,
    weighted,
    z_loss,
)
from efficientids_flax.sharding import constrain

# A full softmax with more logits than this is computed in chunks, in 1.3 times the time.
WHOLE_LOGITS = 1 << 24
NO_CLUSTER = np.iinfo(np.int32).min  # the original's look-up gives this for labels that are no item


@dataclass(frozen=True)
class Head:
    """Losses and scores as functions of `HeadInputs`; holds no parameters.

    Attributes:
        config: all options.
        clustering: where each item belongs; None under full softmax.
        note: called with the name and value of each intermediate; None: not recorded.
        adapter: maps `rows` to `items`; the second pass applies it only to the members it needs.
        key: random key for the negatives of a sampled softmax; None if none are drawn.
    """

    config: HeadConfig
    clustering: ClusteringInfo | None
    note: Callable[[str, jax.Array], Any] | None = None
    adapter: Adapter | None = None
    key: jax.Array | None = None

    def cross_entropy(
        self,
        inputs: HeadInputs,
        labels: jax.Array,
        is_item: jax.Array | None = None,
        training: bool = True,
    ) -> jax.Array:
        """Cross entropy of each label, a word or an item.

        Args:
            inputs: from `HierarchicalSoftmax.inputs`.
            labels: int [...]; labels out of range give 0.
            is_item: [...], 1 where the label is an item; None: all are.
            training: whether labels are smoothed (otherwise only with `label_smoothing_in_eval`).
                Under full softmax the original's evaluation gives words no probability: the entropy
                of a word is then infinite, or large with a soft cap.

        Returns:
            float32 [...].
        """
        return self._entropy(inputs, labels, is_item, training)[0]

    def _entropy(
        self,
        inputs: HeadInputs,
        labels: jax.Array,
        is_item: jax.Array | None,
        training: bool,
        shares: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Each `cross_entropy`, and their sum weighted by `shares`.

        The sum is None unless the second pass computes it with a gradient of its own.
        """
        config = self.config
        smooth = training or config.label_smoothing_in_eval
        first = config.label_smoothing if smooth else 0.0
        item = jnp.ones(labels.shape, bool) if is_item is None else is_item > 0
        vocab = 0 if inputs.word_logits is None else inputs.word_logits.shape[-1]
        known = item & (labels >= 0) & (labels < config.num_items)
        index = jnp.where(known, labels, 0)
        if inputs.clusters is None and training and config.sampled_softmax is not None:
            # Positions without weight, such as padding, are not used as negatives either.
            counts = jnp.ones(labels.shape, bool) if shares is None else shares > 0
            of = SampledLabels(jnp.where(item, index, labels), known & counts, ~item & counts)
            return sampled_losses(config, config.sampled_softmax, inputs, of, self.key), None
        if inputs.clusters is None:
            classes = jnp.where(item, jnp.where(known, vocab + index, -1), labels)
            if training and self._in_chunks(inputs):
                return self._chunked(inputs, classes, first)[0], None
            logits = self._full_logits(inputs) if training else self.evaluation_logits(inputs)
            return smoothed_cross_entropy(jax.nn.log_softmax(logits), classes, first), None
        assert self.clustering is not None
        clusters = self._cluster_of()[index]
        classes = jnp.where(item, jnp.where(known, vocab + clusters, -1), labels)
        entropy = smoothed_cross_entropy(self._first_log_probs(inputs), classes, first)
        self._note_members(inputs, labels)
        rows = inputs.items if inputs.rows is None else inputs.rows
        second = member_losses(
            Entropy(config.soft_cap_logits, config.second_label_smoothing if smooth else 0.0),
            self.clustering,
            inputs.query.reshape(-1, inputs.query.shape[-1]),
            rows,
            Labels(
                jnp.where(known, clusters, inputs.clusters.shape[0]).reshape(-1),
                index.reshape(-1),
            ),
            None if shares is None else jnp.maximum(shares, 0.0).reshape(-1),
            self.adapter or AS_IT_IS,
            inputs.places,
        )
        average = None
        if shares is not None and second.total is not None:
            average = jnp.sum(weighted(entropy, shares)) + second.total
        return entropy + second.each.reshape(labels.shape), average

    def loss(
        self,
        inputs: HeadInputs,
        labels: jax.Array,
        weights: jax.Array,
        is_item: jax.Array | None = None,
        training: bool = True,
        aux_losses: Any = (),
    ) -> LossOutput:
        """The loss and its parts.

        Args:
            inputs: from `HierarchicalSoftmax.inputs`.
            labels, is_item, training: see `cross_entropy`.
            weights: [...], weights of the labels.
            aux_losses: any pytree of further losses, such as the experts' load balance; all
                leaves are added up.

        Returns:
            Finite if all entropies with a nonzero weight are. (The original divides its z-loss by
            the sum of the weights even if that is zero.)
        """
        weights = weights.astype(jnp.float32)
        total_weight = jnp.sum(weights) + TINY_WEIGHT
        # An infinite sum of weights gives NaN, as dividing the summed losses by it would, not 0.
        shares = jnp.where(jnp.isfinite(total_weight), weights / total_weight, jnp.nan)
        entropy, average = self._entropy(inputs, labels, is_item, training, shares)
        own = None
        if self.config.z_loss_weight:
            own = self.config.z_loss_weight * self._z_loss(inputs, weights, training)
        return LossOutput(**summed(entropy, weights, aux_losses, own, average))

    def scores(self, inputs: HeadInputs, correction: bool | None = None) -> jax.Array:
        """Scores of all items, higher is better.

        Args:
            inputs: from `HierarchicalSoftmax.inputs`.
            correction: subtract each cluster's normaliser. Without a soft cap the scores are then
                log-probabilities up to one constant for each position. None: as configured.

        Returns:
            float32 [..., I].
        """
        config = self.config
        if inputs.clusters is None:
            return item_logits(inputs.query, inputs.items, config.soft_cap_logits)
        cluster_of = self._cluster_of()
        found = item_scores(inputs.query, inputs.items, inputs.clusters, cluster_of)
        if config.use_correction if correction is None else correction:
            logits = item_logits(inputs.query, inputs.items, None)
            found -= normalisers(logits, cluster_of, inputs.clusters.shape[0])[..., cluster_of]
        return soft_cap(found, config.soft_cap_logits)

    def evaluation_logits(self, inputs: HeadInputs) -> jax.Array:
        """The original's evaluation scores, float32 [..., V + I].

        Words score -inf, or -cap with a soft cap.
        """
        scores = self.scores(inputs)
        if inputs.word_logits is None:
            return scores
        cap = self.config.soft_cap_logits
        words = jnp.full(inputs.word_logits.shape, -cap if cap else -jnp.inf, jnp.float32)
        return jnp.concatenate([words, scores], axis=-1)

    def log_probs(self, inputs: HeadInputs) -> jax.Array:
        """Log-probabilities of words and items under the training loss, float32 [..., V + I].

        The probabilities of a row sum to one. Without smoothing, a label's entry is minus its
        `cross_entropy`.
        """
        if inputs.clusters is None:
            return jax.nn.log_softmax(self._full_logits(inputs))
        first = self._first_log_probs(inputs)
        split = first.shape[-1] - inputs.clusters.shape[0]
        cap = self.config.soft_cap_logits
        items = item_log_probs(
            first[..., split:], inputs.query, inputs.items, self._cluster_of(), cap
        )
        return jnp.concatenate([first[..., :split], items], axis=-1)

    def _first_log_probs(self, inputs: HeadInputs) -> jax.Array:
        """float32 [..., V + K]."""
        assert inputs.clusters is not None
        logits = first_pass_logits(
            inputs.word_logits, inputs.query, inputs.clusters, self.config.soft_cap_logits
        )
        logits = constrain_batch(logits, "B T V")
        self._note("first_pass_logits", logits)
        return jax.nn.log_softmax(logits)

    def _full_logits(self, inputs: HeadInputs) -> jax.Array:
        """float32 [..., V + I], including the word logits, as in training."""
        cap = self.config.soft_cap_logits
        logits = first_pass_logits(inputs.word_logits, inputs.query, inputs.items, cap)
        logits = constrain_batch(logits, "B T V")
        self._note("full_logits", logits)
        return logits

    def _in_chunks(self, inputs: HeadInputs) -> bool:
        """Whether a full softmax has too many logits to hold at once."""
        words = 0 if inputs.word_logits is None else inputs.word_logits.shape[-1]
        count = inputs.query.size // inputs.query.shape[-1] * (words + self.config.num_items)
        return self.note is None and count > WHOLE_LOGITS

    def _chunked(
        self, inputs: HeadInputs, classes: jax.Array, smoothing: float
    ) -> tuple[jax.Array, jax.Array]:
        """(cross entropy of the classes [...], logsumexp of all logits [...]) of a full softmax."""
        words = inputs.word_logits
        given = Classes(
            inputs.query.reshape(-1, inputs.query.shape[-1]),
            inputs.items,
            None if words is None else words.reshape(-1, words.shape[-1]),
            classes.reshape(-1),
        )
        entropy = Entropy(self.config.soft_cap_logits, smoothing)
        found: Any = chunked_cross_entropy(entropy, given)
        each, normalisers = (part.reshape(classes.shape) for part in found)
        return each, normalisers

    def _z_loss(self, inputs: HeadInputs, weights: jax.Array, training: bool) -> jax.Array:
        if inputs.clusters is not None or not training:
            return z_loss(jax.lax.stop_gradient(self.evaluation_logits(inputs)), weights)
        if self._in_chunks(inputs):
            nothing = jnp.full(weights.shape, -1)
            return squared_normalisers(self._chunked(inputs, nothing, 0.0)[1], weights)
        return z_loss(self._full_logits(inputs), weights)

    def _note_members(self, inputs: HeadInputs, labels: jax.Array) -> None:
        """Note the second pass of every label as the original computes it: words as if items."""
        if self.note is None:
            return
        assert self.clustering is not None
        cluster_of, members = self._cluster_of(), jnp.asarray(self.clustering.members)
        cap = self.config.soft_cap_logits
        inside = (labels >= 0) & (labels < self.config.num_items)
        clusters = jnp.where(inside, cluster_of[jnp.where(inside, labels, 0)], NO_CLUSTER)
        rows = jnp.where(inside[..., None], members[jnp.maximum(clusters, 0)], NO_CLUSTER)
        logits = jnp.einsum("...w,...mw->...m", inputs.query, inputs.items[jnp.maximum(rows, 0)])
        logits = jnp.where(rows == PADDING, -jnp.inf, logits.astype(jnp.float32))
        self._note("label_clusters", clusters)
        self._note("label_members", rows)
        self._note("member_logits", soft_cap(logits, cap))

    def _cluster_of(self) -> jax.Array:
        """Int [I]."""
        assert self.clustering is not None
        return jnp.asarray(self.clustering.cluster_of)

    def _note(self, name: str, value: jax.Array) -> None:
        if self.note is not None:
            self.note(name, value)


def constrain_batch(x: jax.Array, axes: str) -> jax.Array:
    """`constrain` an activation if its leading axes are B and T, else return it unchanged."""
    return constrain(x, axes) if x.ndim == len(axes.split()) else x
