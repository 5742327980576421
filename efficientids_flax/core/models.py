"""The recommender: a decoder whose input interleaves items with words and whose head scores both.

    model = EfficientIDSModel(config, clustering)             # of load_config(out).model
    outputs = model.apply({"params": params}, input_ids, item_ids, item_mask, top_k=10)

Computes what the original EfficientIDs system computes (arXiv 2509.03746, on Praxis). Letters: B
batch, T time, D model width, E item width, I items, K clusters.
"""

import jax
import jax.numpy as jnp

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.batch import as_arrays, check_shapes
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import Source
from efficientids_flax.core.item_model import CALLED, ItemModel, Outputs
from efficientids_flax.core.model_checks import check_fields, check_given
from efficientids_flax.core.simple_model import SimpleEfficientIDSModel

__all__ = ["EfficientIDSModel", "SimpleEfficientIDSModel"]


class EfficientIDSModel(ItemModel):
    """A language model that also reads and predicts items.

    Give either `config` or the seed API's fields. The fields make a configuration with one input
    adapter layer, used for all tables, and with the clustering's means as cluster vectors (or
    trained vectors, if it has no means).

    Attributes:
        config: configuration of the model.
        clustering_info: the cluster of each item. Its means are the cluster vectors unless these
            are trained. Not needed under full softmax.
        model_name: folder of a HuggingFace model, or its name in the local cache. Only its
            configuration is read; weights are loaded elsewhere, and nothing is downloaded.
        num_items, num_clusters, item_embedding_dim: I, K (None: the clustering's), E.
        freeze_lm: the decoder's parameters get no gradients; gradients still pass through it.
        item_embedding_init: see `embedding_initializer`.
        use_correction: whether scores subtract each cluster's normaliser.
        backbone: configuration of the decoder, instead of `model_name`.
        remat: rematerialisation of the decoder's layers, see `Decoder`.

    Raises:
        ValueError: missing fields, fields that contradict `config`, or tables that do not fit.
    """

    config: EfficientIDSConfig = None  # pyright: ignore[reportAssignmentType]
    clustering_info: ClusteringInfo | None = None
    model_name: str | None = None
    num_items: int | None = None
    num_clusters: int | None = None
    item_embedding_dim: int | None = None
    freeze_lm: bool = False
    item_embedding_init: Source = None
    use_correction: bool | None = None
    backbone: BackboneConfig | None = None
    remat: str | None = None

    def __post_init__(self) -> None:
        if self.config is None:
            object.__setattr__(self, "config", self._made_config())
        check_fields(self, self.config, ("backbone",))
        super().__post_init__()

    def _made_config(self) -> EfficientIDSConfig:
        check_given(self, ("num_items", "item_embedding_dim", "clustering_info"))
        tables, backbone = self.clustering_info, self.backbone
        assert tables is not None
        if backbone is None:
            if self.model_name is None:
                raise ValueError("EfficientIDSModel: missing model_name or backbone (or config)")
            from efficientids_flax.backbone.presets import backbone_config

            backbone = backbone_config(self.model_name)
        return EfficientIDSConfig(
            num_items=self.num_items or 0,
            item_embedding_dim=self.item_embedding_dim or 0,
            num_clusters=self.num_clusters or tables.num_clusters,
            trainable_cluster_embeddings=tables.means is None,
            use_correction=bool(self.use_correction),
            backbone=backbone,
        )

    def __call__(
        self,
        input_ids: jax.Array,
        item_ids: jax.Array | None = None,
        item_mask: jax.Array | None = None,
        *,
        labels: jax.Array | None = None,
        weights: jax.Array | None = None,
        label_item_mask: jax.Array | None = None,
        paddings: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        inputs_indicator: jax.Array | None = None,
        pretrained_lm_module: Decoder | None = None,
        training: bool = False,
        top_k: int | None = None,
    ) -> Outputs:
        """Loss and metrics, or scores of all items, at positions of text and of items.

        Args:
            input_ids: int [B, T], words.
            item_ids: int [B, T], items, used where `item_mask` is 1.
            item_mask: [B, T], 0 or 1; with `item_ids`, or neither for text alone.
            labels: int [B, T], words, or items where `label_item_mask` is 1. None in training: what
                is at the next position of the row, if that is in the same segment, neither padding
                nor prefix, and no placeholder id beyond the items.
            weights: [B, T], weights of the labels in the loss; None: 1 except on padding.
            label_item_mask: [B, T], 0 or 1; give it with labels.
            paddings: [B, T], 1 on padding; None: no padding.
            segment_ids, positions: int [B, T], for packed sequences.
            inputs_indicator: [B, T], 1 on the prefix.
            pretrained_lm_module: a decoder bound to its parameters, used instead of the model's
                own, whose parameters are then not needed: `Decoder(backbone).bind({"params":
                params})`.
            training: apply dropout and label smoothing, and return no scores.
            top_k: return the k best items instead of all scores; not in training.

        Returns:
            With labels or in training: `loss` and the metrics of `LossOutput.metrics`, float32 [].
            Outside of training also `scores` float32 [B, T, I]; with `top_k` instead `scores`
            float32 and `items` int32, both [B, T, k].

        Raises:
            ValueError: naming every wrong argument (values are checked only outside of jit).
        """
        if (item_ids is None) != (item_mask is None):
            name = "item_ids" if item_ids is None else "item_mask"
            raise ValueError(f"{name}: missing; item_ids and item_mask go together")
        given = as_arrays({"input_ids": input_ids, "item_ids": item_ids, "item_mask": item_mask})
        ids = given["input_ids"]
        mask = given.get("item_mask", jnp.zeros(ids.shape, jnp.int32))
        if "item_ids" in given:
            items = given["item_ids"]
            check_shapes(ids.shape, item_ids=items, item_mask=mask)
            ids = jnp.where(mask > 0, items, ids)
        batch = {
            "ids": ids,
            "input_item_weights": mask,
            "paddings": paddings,
            "segment_ids": segment_ids,
            "segment_pos": positions,
            "inputs_indicator": inputs_indicator,
            "labels": labels,
            "weights": weights,
            "label_item_weights": label_item_mask,
        }
        return self._outputs(batch, training, top_k, pretrained_lm_module, CALLED)
