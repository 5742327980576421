"""The recommender: a decoder whose input interleaves items with words and whose head scores both.

Computes what the original EfficientIDs system computes (arXiv 2509.03746, on Praxis). Letters: B
batch, T time, D model width, E item width, V words, I items, K clusters.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.layers import ACTIVATIONS, Dense, param_dtype, soft_cap
from efficientids_flax.config import AdapterConfig, BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.hierarchical import (
    first_pass_logits,
    item_scores,
    member_logits,
    normalisers,
    smoothed_cross_entropy,
)

Batch = Mapping[str, jax.Array]


class HeadInputs(NamedTuple):
    """What the head works on.

    Attributes:
        hidden: [B, T, D] after the final norm; words are scored by it.
        query: [B, T, W], scores items and clusters.
        items: [I, W].
        clusters: [K, W]; None under full softmax.
    """

    hidden: jax.Array
    query: jax.Array
    items: jax.Array
    clusters: jax.Array | None


class Adapter(nn.Module):
    """MLP between item and model width; every layer is activated, the last one too."""

    width: int
    config: AdapterConfig
    backbone: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> [..., width]."""
        hidden = [self.config.hidden_dims or 0] * (self.config.num_layers - 1)
        for index, size in enumerate([*hidden, self.width]):
            x = Dense(size, True, self.backbone, name=f"layers_{index}")(x)
            x = ACTIVATIONS[self.config.activation](x)
        return x


class Table(nn.Module):
    """A table of vectors, stored [E, rows] as PAXml does."""

    rows: int
    width: int
    backbone: BackboneConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        """[rows, E]."""
        shape = (self.width, self.rows)
        init = nn.initializers.xavier_uniform()
        return self.param("kernel", init, shape, param_dtype(self.backbone)).T


class Recommender(nn.Module):
    """A decoder with items.

    Attributes:
        config: what it computes.
        clustering: where each item belongs; its means are the cluster vectors where these are not
            trained. None under full softmax.
    """

    config: EfficientIDSConfig
    clustering: ClusteringInfo | None = None

    def setup(self) -> None:
        config, backbone = self.config, self.config.backbone
        self.pretrained_lm = Decoder(backbone)
        self.item_embedding = Table(config.num_items, config.item_embedding_dim, backbone)
        self.item_input_adapter = Adapter(backbone.model_dims, config.input_adapter, backbone)
        if config.output_adapter is not None:
            self.item_output_adapter = Adapter(
                config.item_embedding_dim, config.output_adapter, backbone
            )
        if config.full_softmax:
            return
        if self.clustering is None:
            raise ValueError("the hierarchical softmax needs a ClusteringInfo")
        if self.clustering.num_items != config.num_items:
            raise ValueError(
                f"the clustering holds {self.clustering.num_items} items, the configuration says "
                f"{config.num_items}"
            )
        if config.trainable_cluster_embeddings:
            self.cluster_embedding = Table(
                self.clustering.num_clusters, config.item_embedding_dim, backbone
            )

    def head_inputs(self, batch: Batch, deterministic: bool = True) -> HeadInputs:
        """Embed, run the decoder, bring the tables to the query's width.

        Args:
            batch: `ids` int [B, T] (an item id where `input_item_weights` is 1), `paddings`, and
                for packed sequences `segment_ids` and `segment_pos`, all [B, T].
            deterministic: no dropout.
        """
        config = self.config
        ids = batch["ids"]
        table = self.item_embedding()
        words = self.pretrained_lm.embed(ids)
        # The original clips item ids (its placeholder 102 becomes the last item of a small table),
        # and a clipped look-up has no gradient. Words are looked up here too, and not used.
        rows = table[jnp.clip(ids, 0, config.num_items - 1)]
        inside = (ids >= 0) & (ids < config.num_items)
        rows = jnp.where(inside[..., None], rows, jax.lax.stop_gradient(rows))
        is_item = batch["input_item_weights"][..., None] > 0
        hidden = self.pretrained_lm(
            inputs_embeds=jnp.where(is_item, self.item_input_adapter(rows), words),
            paddings=batch["paddings"],
            segment_ids=batch.get("segment_ids"),
            positions=batch.get("segment_pos"),
            inputs_indicator=batch.get("inputs_indicator"),
            deterministic=deterministic,
        )
        clusters = None
        if not config.full_softmax:
            clusters = self._cluster_vectors()
        if config.output_adapter is not None:
            return HeadInputs(
                hidden, self._query(self.item_output_adapter(hidden)), table, clusters
            )
        items = self.item_input_adapter(table)
        clusters = None if clusters is None else self.item_input_adapter(clusters)
        return HeadInputs(hidden, self._query(hidden), items, clusters)

    def cross_entropy(self, inputs: HeadInputs, batch: Batch, train: bool) -> jax.Array:
        """Cross entropy of each label, a word or an item.

        Args:
            inputs: of `head_inputs`.
            batch: `labels` int [B, T], an item id where `label_item_weights` [B, T] is 1.
            train: whether labels are smoothed (else only with `label_smoothing_in_eval`).

        Returns:
            float32 [B, T].
        """
        config = self.config
        smooth = train or config.label_smoothing_in_eval
        first = config.label_smoothing if smooth else 0.0
        second = config.second_label_smoothing if smooth else 0.0
        labels, is_item = batch["labels"], batch["label_item_weights"] > 0
        words = self._word_logits(inputs.hidden)
        vocab = config.backbone.vocab_size
        if inputs.clusters is None:
            if not train:  # the original takes the words out of its evaluation; a cap lets -cap in
                words = jnp.full_like(words, -jnp.inf)
            logits = jnp.concatenate(
                [words, jnp.einsum("btw,iw->bti", inputs.query, inputs.items)], axis=-1
            )
            logits = soft_cap(logits.astype(jnp.float32), config.soft_cap_logits)
            classes = jnp.where(is_item, vocab + labels, labels)
            return smoothed_cross_entropy(jax.nn.log_softmax(logits), classes, first)
        cluster_of, members, slot_of = self._places()
        known = is_item & (labels >= 0) & (labels < config.num_items)
        item = jnp.where(known, labels, 0)
        cluster = cluster_of[item]
        logits = first_pass_logits(words, inputs.query, inputs.clusters, config.soft_cap_logits)
        classes = jnp.where(is_item, jnp.where(known, vocab + cluster, -1), labels)
        total = smoothed_cross_entropy(jax.nn.log_softmax(logits), classes, first)
        own = members[cluster]
        logits = member_logits(inputs.query, inputs.items, own, config.soft_cap_logits)
        within = smoothed_cross_entropy(jax.nn.log_softmax(logits), slot_of[item], second, own >= 0)
        return total + jnp.where(known, within, 0.0)

    def loss(self, batch: Batch, deterministic: bool = True, train: bool = True) -> jax.Array:
        """Mean cross entropy, weighted by `weights` [B, T]: `sum(xent w) / (sum(w) + 1e-6)`."""
        inputs = self.head_inputs(batch, deterministic)
        weights = batch["weights"].astype(jnp.float32)
        entropy = self.cross_entropy(inputs, batch, train)
        return jnp.sum(entropy * weights) / (jnp.sum(weights) + 1e-6)

    def scores(self, batch: Batch, correction: bool | None = None) -> jax.Array:
        """Scores of all items at every position, higher is better.

        Args:
            batch: see `head_inputs`.
            correction: subtract each cluster's normaliser, which makes the scores log-probabilities
                up to a constant a position; None as configured.

        Returns:
            float32 [B, T, I].
        """
        config = self.config
        inputs = self.head_inputs(batch)
        if inputs.clusters is None:
            found = jnp.einsum("btw,iw->bti", inputs.query, inputs.items).astype(jnp.float32)
        else:
            cluster_of, _, _ = self._places()
            found = item_scores(inputs.query, inputs.items, inputs.clusters, cluster_of)
            if config.use_correction if correction is None else correction:
                count = inputs.clusters.shape[0]
                found -= normalisers(inputs.query, inputs.items, cluster_of, count)[..., cluster_of]
        return soft_cap(found, config.soft_cap_logits)

    def _query(self, hidden: jax.Array) -> jax.Array:
        scale = self.config.backbone.model_dims**-0.5 if self.config.scale_before_logits else 1.0
        return hidden * scale

    def _word_logits(self, hidden: jax.Array) -> jax.Array:
        """[B, T, V], without a cap: this head has its own."""
        return self.pretrained_lm.lm_head(self._query(hidden))

    def _cluster_vectors(self) -> jax.Array:
        """[K, E], trained or from the clustering file."""
        if self.config.trainable_cluster_embeddings:
            return self.cluster_embedding()
        assert self.clustering is not None
        if self.clustering.means is None:
            raise ValueError("cluster embeddings are not trained, and the clustering has no means")
        return jnp.asarray(self.clustering.means)

    def _places(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(cluster_of [I], members [K, M], slot_of [I])."""
        assert self.clustering is not None
        tables = self.clustering
        return (
            jnp.asarray(tables.cluster_of),
            jnp.asarray(tables.members),
            jnp.asarray(tables.slot_of),
        )
