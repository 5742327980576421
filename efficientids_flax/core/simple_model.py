"""The recommender without words: a small transformer over a history of items.

    model = SimpleEfficientIDSModel(num_items, num_clusters, clustering_info=clustering)
    loss = model.apply(variables, item_ids, training=True)["loss"]

Letters: B batch, T time, D model width, E item width, I items, K clusters.
"""

from functools import cache

import jax

from efficientids_flax.config import (
    BackboneConfig,
    EfficientIDSConfig,
    RotaryConfig,
    SampledSoftmaxConfig,
)
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import Source
from efficientids_flax.core.item_model import CALLED, ItemModel, Outputs
from efficientids_flax.core.model_checks import check_given


class SimpleEfficientIDSModel(ItemModel):
    """A small transformer over items alone, trained from scratch; there are no words.

    The decoder is causal, with rotary positions and a gated MLP. Its parameters have the paths of
    `EfficientIDSModel`'s, under `pretrained_lm` though nothing is pretrained: the tables of paths
    and shardings hold for both.

    Attributes:
        num_items, num_clusters, item_embedding_dim: I, K (None: the clustering's; not given under
            full softmax), E.
        model_dims: D.
        clustering_info: the cluster of each item; cluster vectors are trained.
        use_correction: whether scores subtract each cluster's normaliser.
        item_embedding_init: see `embedding_initializer`.
        full_softmax: one softmax over all items; needs no clustering.
        sampled_softmax: how to estimate the full softmax in training; None: it is computed exactly.
        num_layers, num_heads, hidden_dims: sizes of the decoder; `hidden_dims` is the hidden width
            of the MLP, None: 4 D.
        dropout: rate after the embeddings, after each sublayer and in the MLP.
        remat: rematerialisation of the layers, see `Decoder`.

    Raises:
        ValueError: a clustering or sizes that do not fit.
    """

    num_items: int
    num_clusters: int | None = None
    item_embedding_dim: int = 384
    model_dims: int = 512
    clustering_info: ClusteringInfo | None = None
    use_correction: bool = False
    item_embedding_init: Source = None
    full_softmax: bool = False
    num_layers: int = 2
    num_heads: int = 8
    hidden_dims: int | None = None
    dropout: float = 0.0
    remat: str | None = None
    sampled_softmax: SampledSoftmaxConfig | None = None

    def __post_init__(self) -> None:
        if not self.full_softmax:
            check_given(self, ("clustering_info",))
        elif self.num_clusters is not None:
            raise ValueError(
                f"SimpleEfficientIDSModel: num_clusters: found {self.num_clusters}, a full softmax"
                " has no clusters; leave it out, or full_softmax"
            )
        super().__post_init__()

    @property
    def freeze_lm(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Always False: nothing is pretrained."""
        return False

    @property
    def config(self) -> EfficientIDSConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The full configuration that these fields stand for."""
        clusters = self.num_clusters
        if clusters is None and self.clustering_info is not None:
            clusters = self.clustering_info.num_clusters
        return _simple_config(
            self.num_items,
            None if self.full_softmax else clusters,
            self.item_embedding_dim,
            self.model_dims,
            self.use_correction,
            self.num_layers,
            self.num_heads,
            self.hidden_dims,
            self.dropout,
            self.sampled_softmax,
        )

    def __call__(
        self,
        item_ids: jax.Array,
        *,
        labels: jax.Array | None = None,
        weights: jax.Array | None = None,
        paddings: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        training: bool = False,
        top_k: int | None = None,
    ) -> Outputs:
        """Loss and metrics, or scores of all items, after each item of a history.

        Args:
            item_ids: int [B, T].
            labels: int [B, T], the items to predict; None in training: the next item of the row.
            weights, paddings, segment_ids, positions, training, top_k: see `EfficientIDSModel`.

        Returns:
            See `EfficientIDSModel`.

        Raises:
            ValueError: naming every wrong argument (values are checked only outside of jit).
        """
        batch = {
            "ids": item_ids,
            "paddings": paddings,
            "segment_ids": segment_ids,
            "segment_pos": positions,
            "labels": labels,
            "weights": weights,
        }
        return self._outputs(batch, training, top_k, None, CALLED | {"ids": "item_ids"})


@cache
def _simple_config(
    num_items: int,
    num_clusters: int | None,
    item_embedding_dim: int,
    model_dims: int,
    use_correction: bool,
    num_layers: int,
    num_heads: int,
    hidden_dims: int | None,
    dropout: float,
    sampled_softmax: SampledSoftmaxConfig | None,
) -> EfficientIDSConfig:
    """The configuration; without `num_clusters` it has a full softmax."""
    if num_heads < 1 or model_dims % num_heads or (model_dims // num_heads) % 2:
        raise ValueError(
            f"SimpleEfficientIDSModel: num_heads: found {num_heads}, expected a divisor of "
            f"model_dims = {model_dims} that makes heads of even width"
        )
    backbone = BackboneConfig(
        vocab_size=0,
        num_layers=num_layers,
        model_dims=model_dims,
        hidden_dims=hidden_dims or 4 * model_dims,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=model_dims // num_heads,
        rotary=RotaryConfig(),
        gated_mlp=True,
        activation="silu",
        input_dropout=dropout,
        residual_dropout=dropout,
        mlp_dropout=dropout,
    )
    return EfficientIDSConfig(
        num_items=num_items,
        item_embedding_dim=item_embedding_dim,
        num_clusters=num_clusters,
        trainable_cluster_embeddings=num_clusters is not None,
        full_softmax=num_clusters is None,
        sampled_softmax=sampled_softmax,
        use_correction=use_correction,
        backbone=backbone,
        placeholder_item_id=None,
    )
