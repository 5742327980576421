"""A recommender on a pretrained language model: the model and its initial parameters.

    model, params = load_recommender("Qwen/Qwen3-0.6B", clustering, item_embedding_dim=384)
    trainer = Trainer(model, create_optimizer(1e-3), checkpoint_dir="runs/first")
    state = trainer.create_train_state(jax.random.key(0), sample_batch, params=params)

`train` takes both as `{"model": {"module": model, "params": params}}`. In a configuration file:

    model:
      kind: factory
      factory: converters.recommender:load_recommender
      options: {name_or_path: Qwen/Qwen3-0.6B, item_embedding_dim: 384}

Parameters that are not in `params` (items, adapters, clusters, LoRA weights) are initialized at
random.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.huggingface import load_pretrained_lm
from efficientids_flax.config import BackboneConfig, LoraConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import Source
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.stored import Shardings

HEAD = ("lm_head", "output_projection")  # parameters that a language model without logits lacks


def load_recommender(
    name_or_path: str | os.PathLike[str],
    clustering: ClusteringInfo | None,
    *,
    item_embedding_dim: int,
    num_items: int | None = None,
    item_embedding_init: Source = None,
    use_correction: bool | None = None,
    freeze_lm: bool = True,
    lora: LoraConfig | Mapping[str, Any] | None = None,
    lm_dtype: str | None = "bfloat16",
    dtype: str | None = None,
    remat: str | None = None,
    words: bool = True,
    scan_layers: bool = False,
    shardings: Shardings | None = None,
    revision: str = "main",
    download: bool = False,
    token: str | None = None,
) -> tuple[EfficientIDSModel, dict[str, Any]]:
    """Build an `EfficientIDSModel` on a pretrained HuggingFace model, which is frozen by default.

    Items, adapters, clusters and LoRA weights are float32, whatever the dtype of the language
    model, because bfloat16 would round small training updates away.

    Args:
        name_or_path: folder, or name of a model in the HuggingFace cache.
        clustering: the cluster of each item. None is an error; a factory receives None if the data
            has no clustering.
        item_embedding_dim, num_items, item_embedding_init, use_correction, remat: as in
            `EfficientIDSModel`; `num_items` None: taken from the clustering.
        freeze_lm: whether the language model is frozen.
        lora: LoRA weights added to the language model; they are trained even if it is frozen, see
            `backbone.lora`.
        lm_dtype: dtype of the language model's parameters; None: as stored.
        dtype: dtype of the computation; None: `lm_dtype`. On CPUs float32 is faster.
        words: whether the first softmax includes words, as in the original. If every label is an
            item, False saves the product with the word embeddings (a fifth of a step for a small
            language model), and clusters need not learn to outscore words.
        scan_layers, shardings, revision, download, token: see `load_pretrained_lm`; the paths in
            `shardings` are those of the decoder.

    Returns:
        (model, {"pretrained_lm": its parameters}).

    Raises:
        ConversionError: see `load_pretrained_lm`.
        ValueError: the fields do not fit each other, or there is no clustering.
    """
    if clustering is None:
        raise ValueError(
            "clustering: missing; the recommender chooses a cluster first: make one with"
            " efficientids cluster"
        )
    if isinstance(lora, Mapping):
        lora = LoraConfig.from_dict(lora)
    backbone, params = load_pretrained_lm(
        name_or_path,
        lm_dtype,
        shardings=shardings,
        scan_layers=scan_layers,
        revision=revision,
        download=download,
        token=token,
    )
    if not words:
        backbone, params = _without_head(backbone, params)
    changes: dict[str, Any] = {"dtype": dtype} if dtype else {}
    model = EfficientIDSModel(
        num_items=clustering.num_items if num_items is None else num_items,
        item_embedding_dim=item_embedding_dim,
        clustering_info=clustering,
        item_embedding_init=item_embedding_init,
        use_correction=use_correction,
        freeze_lm=freeze_lm,
        backbone=replace(backbone, param_dtype="float32", lora=lora, **changes),
        remat=remat,
    )
    return model, {"pretrained_lm": params}


def _without_head(
    backbone: BackboneConfig, params: Mapping[str, Any]
) -> tuple[BackboneConfig, dict[str, Any]]:
    """The language model without its output head; it still embeds words."""
    left = {name: part for name, part in params.items() if name not in HEAD}
    if backbone.tied_embeddings:
        kernel = params["lm_head"]["kernel"]  # [V, D] with kernel_axes "out_in", otherwise [D, V]
        table = kernel if backbone.kernel_axes == "out_in" else kernel.T
        left["embedder"] = {"embedding": table}
    without = replace(backbone, lm_head=False, tied_embeddings=False, lm_head_bias=False)
    return without, left
