"""What the head computes from a query and the tables: losses, scores, log-probabilities.

Letters: D width of the hidden states, W of query and tables (D or E), E item width, V words, I
items, K clusters, M slots of the largest cluster; `...` any leading axes, mostly B batch and T
time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone.layers import soft_cap
from efficientids_flax.config.recommender import HeadConfig
from efficientids_flax.core.clustering import PADDING, ClusteringInfo
from efficientids_flax.core.head.hierarchical import (
    first_pass_logits,
    item_log_probs,
    item_logits,
    item_scores,
    normalisers,
)
from efficientids_flax.core.head.second import AS_IT_IS, Adapter, Entropy, Labels, member_losses
from efficientids_flax.losses import (
    TINY_WEIGHT,
    smoothed_cross_entropy,
    summed,
    weighted,
    z_loss,
)
from efficientids_flax.sharding import constrain

NO_CLUSTER = np.iinfo(np.int32).min  # what the original's look-up gives for a label that is no item


class HeadInputs(NamedTuple):
    """What the head works on.

    Attributes:
        hidden: [..., D], of the backbone.
        query: [..., W], scores items and clusters.
        items: [I, W].
        clusters: [K, W]; None under full softmax.
        word_logits: [..., V] without a cap; None where there are no words.
        rows: [I, E], the items before the adapter that `Head` holds; None where it holds none.
    """

    hidden: jax.Array
    query: jax.Array
    items: jax.Array
    clusters: jax.Array | None
    word_logits: jax.Array | None = None
    rows: jax.Array | None = None


class LossOutput(NamedTuple):
    """What the original returns for labels; float32.

    Attributes:
        total_loss: [], what is minimised: `avg_xent + aux_loss`.
        avg_xent: [], `total_xent / (total_weight + 1e-6)`.
        aux_loss, aux_loss_weight: [], the weighted z-loss and the losses of experts, summed, and
            how many there are.
        total_xent, total_weight: [], sums over all positions, the first one weighted.
        per_example_xent: [...], not weighted.
        per_token_xent: [...], weighted.
        per_sequence_xent: [...] less its last axis, sum of `per_token_xent`.
        z_loss: [], weighted as configured; contained in `aux_loss`.
    """

    total_loss: jax.Array
    avg_xent: jax.Array
    aux_loss: jax.Array
    aux_loss_weight: jax.Array
    total_xent: jax.Array
    total_weight: jax.Array
    per_example_xent: jax.Array
    per_token_xent: jax.Array
    per_sequence_xent: jax.Array
    z_loss: jax.Array

    @property
    def loss(self) -> jax.Array:
        """`total_loss`."""
        return self.total_loss

    def metrics(self) -> dict[str, jax.Array]:
        """The loss and the other scalars, by name."""
        names = ("avg_xent", "aux_loss", "total_xent", "total_weight", "z_loss")
        return {"loss": self.total_loss} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Head:
    """The head's functions of `HeadInputs`; it holds no parameters.

    Attributes:
        config: all options.
        clustering: where each item belongs; None under full softmax.
        note: takes the name and the value of intermediates; None where nobody wants them.
        adapter: makes `items` of `rows`; the second pass applies it to the members that it needs.
    """

    config: HeadConfig
    clustering: ClusteringInfo | None
    note: Callable[[str, jax.Array], Any] | None = None
    adapter: Adapter | None = None

    def cross_entropy(
        self,
        inputs: HeadInputs,
        labels: jax.Array,
        is_item: jax.Array | None = None,
        training: bool = True,
    ) -> jax.Array:
        """Cross entropy of each label, a word or an item.

        Args:
            inputs: of `inputs`.
            labels: int [...]; one that is out of range gives 0.
            is_item: [...], 1 where the label is an item; None: everywhere.
            training: whether labels are smoothed (else only with `label_smoothing_in_eval`). Under
                full softmax the original takes the words out of its evaluation: there a word's
                entropy is infinite, or large with a soft cap.

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
        """`cross_entropy`, and its sum times `shares` where that has a gradient of its own."""
        config = self.config
        smooth = training or config.label_smoothing_in_eval
        first = config.label_smoothing if smooth else 0.0
        item = jnp.ones(labels.shape, bool) if is_item is None else is_item > 0
        vocab = 0 if inputs.word_logits is None else inputs.word_logits.shape[-1]
        known = item & (labels >= 0) & (labels < config.num_items)
        index = jnp.where(known, labels, 0)
        if inputs.clusters is None:
            logits = self._full_logits(inputs) if training else self.evaluation_logits(inputs)
            classes = jnp.where(item, jnp.where(known, vocab + index, -1), labels)
            return smoothed_cross_entropy(jax.nn.log_softmax(logits), classes, first), None
        assert self.clustering is not None
        clusters = self._cluster_of()[index]
        classes = jnp.where(item, jnp.where(known, vocab + clusters, -1), labels)
        entropy = smoothed_cross_entropy(self._first_log_probs(inputs), classes, first)
        self._note_members(inputs, labels)
        rows, adapter = inputs.rows, self.adapter
        if rows is None or adapter is None:
            rows, adapter = inputs.items, AS_IT_IS
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
            adapter,
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
        """The loss and what it is made of.

        Args:
            inputs: of `inputs`.
            labels, is_item, training: see `cross_entropy`.
            weights: [...], of the labels.
            aux_losses: any tree of further losses, such as the experts' load balance; all of its
                numbers are added.

        Returns:
            Finite as long as the entropies with a weight are: the original divides its z-loss by
            the sum of the weights, zero or not.
        """
        weights = weights.astype(jnp.float32)
        total_weight = jnp.sum(weights) + TINY_WEIGHT
        # An infinite sum of the weights gives NaN, as dividing by it in the end does, not 0.
        shares = jnp.where(jnp.isfinite(total_weight), weights / total_weight, jnp.nan)
        entropy, average = self._entropy(inputs, labels, is_item, training, shares)
        own = None
        if self.config.z_loss_weight:
            own = self.config.z_loss_weight * z_loss(self._z_logits(inputs, training), weights)
        return LossOutput(**summed(entropy, weights, aux_losses, own, average))

    def scores(self, inputs: HeadInputs, correction: bool | None = None) -> jax.Array:
        """Scores of all items, higher is better.

        Args:
            inputs: of `inputs`.
            correction: subtract each cluster's normaliser, which makes the scores log-probabilities
                up to a constant a position (but for the soft cap, which comes last); None: as
                configured.

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

        Words have -inf, which a soft cap turns into -cap.
        """
        scores = self.scores(inputs)
        if inputs.word_logits is None:
            return scores
        cap = self.config.soft_cap_logits
        words = jnp.full(inputs.word_logits.shape, -cap if cap else -jnp.inf, jnp.float32)
        return jnp.concatenate([words, scores], axis=-1)

    def log_probs(self, inputs: HeadInputs) -> jax.Array:
        """Log-probabilities of words and items, float32 [..., V + I]: what the loss is made of.

        Rows sum to one. Without smoothing the entry of a label is minus its `cross_entropy`.
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
        """float32 [..., V + I], with the words as they are in training."""
        cap = self.config.soft_cap_logits
        logits = first_pass_logits(inputs.word_logits, inputs.query, inputs.items, cap)
        logits = constrain_batch(logits, "B T V")
        self._note("full_logits", logits)
        return logits

    def _z_logits(self, inputs: HeadInputs, training: bool) -> jax.Array:
        if inputs.clusters is None and training:
            return self._full_logits(inputs)
        return jax.lax.stop_gradient(self.evaluation_logits(inputs))

    def _note_members(self, inputs: HeadInputs, labels: jax.Array) -> None:
        """The second pass of every label as the original has it, words taken for items too."""
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
    """`constrain` of what a batch makes, where its leading axes are B and T."""
    return constrain(x, axes) if x.ndim == len(axes.split()) else x
