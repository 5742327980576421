"""The loss of each sequence under settings that are tried, without a compilation for each of them.

Models run operation by operation: XLA compiles an operation once for its shapes, whatever the
numbers in it are, so that a hundred settings cost a hundred runs and no hundred compilations.

Letters: B sequences, T time, V words, L layers.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import HeadInputs
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.losses import language_model_loss
from efficientids_flax.search.samples import Samples
from efficientids_flax.settings.table import ModelConfig

ROWS = 48  # sequences of a part: a search goes by as many, what it finds is decided on all
LOGITS = 1 << 26  # of a part: 256 MiB in float32
POSITIONS = {"segment_pos": "positions"}  # names of batches and of the decoder's arguments
INPUTS = ("paddings", "segment_ids", "segment_pos", "inputs_indicator")
HEAD = "pretrained_lm"
SIZES = ("vocab_size", "num_layers", "model_dims", "hidden_dims", "num_heads", "num_kv_heads",
         "head_dim")  # fmt: skip


class Losses:
    """The loss of each sequence, by configuration; each part of the samples is run once.

    Attributes:
        samples: the sequences.
        runs: how many times a part of them was run.
        params: as `unstacked` has them, on the device.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        samples: Samples,
        clustering: ClusteringInfo | None = None,
    ) -> None:
        """Puts the parameters on the device, layers one by one.

        Args:
            config: of the parameters.
            params: nested dicts of arrays.
            samples: to be judged by.
            clustering: of a recommender.
        """
        self.samples = samples
        self.runs = 0
        self._clustering = clustering
        self.params = jax.device_put(unstacked(config, params))
        words = config.vocab_size if isinstance(config, BackboneConfig) else config.num_items
        rows = max(1, min(ROWS, LOGITS // (max(words, 1) * samples.batch["ids"].shape[1])))
        batch = {name: jnp.asarray(value) for name, value in samples.batch.items()}
        self._parts = [
            {name: value[start : start + rows] for name, value in batch.items()}
            for start in range(0, samples.count, rows)
        ]
        self._first = -(-min(ROWS, samples.count) // rows)
        self._known: dict[tuple[ModelConfig, int], np.ndarray] = {}

    def __call__(self, config: ModelConfig) -> np.ndarray:
        """Sum of the losses of each sequence's labels, float64 [B]; infinite if it is no number."""
        return np.concatenate([self._part(config, part) for part in range(len(self._parts))])

    def few(self, config: ModelConfig) -> np.ndarray:
        """The same of the first sequences alone, which a search goes by."""
        return np.concatenate([self._part(config, part) for part in range(self._first)])

    def mean(self, config: ModelConfig) -> float:
        """Loss per label."""
        return float(self(config).sum() / self.samples.weight.sum())

    def _part(self, config: ModelConfig, part: int) -> np.ndarray:
        if (config, part) not in self._known:
            self.runs += 1
            with jax.default_matmul_precision("highest"):
                found = np.asarray(
                    sequence_losses(config, self.params, self._parts[part], self._clustering),
                    np.float64,
                )
            self._known[config, part] = np.where(np.isfinite(found), found, np.inf)
        return self._known[config, part]


def sequence_losses(
    config: ModelConfig,
    params: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    clustering: ClusteringInfo | None = None,
) -> jax.Array:
    """Sum of the weighted cross entropies of each sequence, float32 [B]; nothing is smoothed.

    Args:
        config: of the model; its layers are taken one by one.
        params: as `unstacked` has them.
        batch: fields of a batch, each [B, T].
        clustering: of a recommender.
    """
    if isinstance(config, EfficientIDSConfig):
        plain = replace(
            config, backbone=_one_by_one(config.backbone), label_smoothing=0.0,
            second_label_smoothing=0.0, z_loss_weight=0.0,
        )  # fmt: skip
        model = EfficientIDSModel(config=plain, clustering_info=clustering)
        inputs: Any = model.apply({"params": params}, batch, method=model.head_inputs)
        sizes = BackboneConfig(**{name: getattr(config.backbone, name) for name in SIZES})
        return _head(replace(plain, backbone=sizes), clustering)(params, inputs, batch)
    plain = replace(_one_by_one(config), label_smoothing=0.0, z_loss_weight=0.0)
    named: dict[str, Any] = {
        POSITIONS.get(name, name): batch[name] for name in INPUTS if name in batch
    }

    def logits(module: Decoder) -> jax.Array:
        return module.logits(module(batch["ids"], **named))

    found: Any = Decoder(plain).apply({"params": params}, method=logits)
    return language_model_loss(plain, found, batch, train=False).per_sequence_xent


@lru_cache(maxsize=64)
def _head(
    config: EfficientIDSConfig, clustering: ClusteringInfo | None
) -> Callable[[Any, HeadInputs, Mapping[str, jax.Array]], jax.Array]:
    """Compiled (parameters, what the head works on, batch) -> losses, float32 [B].

    The head has loops, which are compiled whole: once for its own settings, whatever the decoder's.
    """
    model = EfficientIDSModel(config=config, clustering_info=clustering)

    def losses(params: Any, inputs: HeadInputs, batch: Mapping[str, jax.Array]) -> jax.Array:
        def run(module: EfficientIDSModel) -> jax.Array:
            is_item = batch.get("label_item_weights")
            made = module.softmax.head.loss(
                inputs, batch["labels"], batch["weights"], is_item, False, ()
            )
            return jnp.sum(made.per_token_xent, axis=-1)

        found: Any = model.apply({"params": params}, method=run)
        return found

    return jax.jit(losses)


def unstacked(config: ModelConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters with every layer apart: `layers/...` [L, ...] -> `layers_{i}/...`."""
    if isinstance(config, EfficientIDSConfig):
        return {**params, HEAD: unstacked(config.backbone, params[HEAD])}
    if not config.scan_layers:
        return dict(params)
    found = {name: value for name, value in params.items() if name != "layers"}
    count = config.layers_per_block
    for layer in range(config.num_layers):
        stack = params["layers"] if count == 1 else params["layers"][f"block_{layer % count}"]
        found[f"layers_{layer}"] = jax.tree.map(lambda leaf, at=layer // count: leaf[at], stack)
    return found


def _one_by_one(config: BackboneConfig) -> BackboneConfig:
    """The same model of float32 with its layers apart, which a scan would compile each time."""
    return replace(config, scan_layers=False, layers_per_block=1, dtype="float32")
