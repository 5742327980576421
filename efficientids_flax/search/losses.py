"""Losses of each sequence under settings that are tried, without compiling each setting.

Models run operation by operation. XLA compiles an operation once per shape, whatever the values, so
that a hundred settings cost a hundred runs, but not a hundred compilations.

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

ROWS = 48  # sequences per part; a search uses about as many, the decision uses all
LOGITS = 1 << 26  # logits per part: 256 MiB in float32
POSITIONS = {"segment_pos": "positions"}  # field of a batch -> argument of the decoder
INPUTS = ("paddings", "segment_ids", "segment_pos", "inputs_indicator")
HEAD = "pretrained_lm"
SIZES = ("vocab_size", "num_layers", "model_dims", "hidden_dims", "num_heads", "num_kv_heads",
         "head_dim")  # fmt: skip


class Losses:
    """Losses of each sequence by configuration, cached for each part of the samples.

    Attributes:
        samples: the sequences.
        runs: how many parts were run so far, over all configurations.
        params: parameters as `unstacked` returns them, on the device.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        samples: Samples,
        clustering: ClusteringInfo | None = None,
    ) -> None:
        """Put the parameters on the device, with layers unstacked.

        Args:
            config: the configuration that the parameters were saved with.
            params: nested dicts of arrays.
            samples: the sequences.
            clustering: the clustering, for a recommender.
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
        """Summed loss of each sequence's labels, float64 [B]; infinite if it is not finite."""
        return np.concatenate([self._part(config, part) for part in range(len(self._parts))])

    def few(self, config: ModelConfig) -> np.ndarray:
        """The same for the first sequences only; the search uses these."""
        return np.concatenate([self._part(config, part) for part in range(self._first)])

    def mean(self, config: ModelConfig) -> float:
        """Mean loss per label."""
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
    """Summed weighted cross entropy of each sequence, float32 [B], without label smoothing.

    Args:
        config: configuration of the model; layers run one by one, whatever `scan_layers` says.
        params: parameters as `unstacked` returns them.
        batch: fields of a batch, each [B, T].
        clustering: the clustering, for a recommender.
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
    """A compiled function: (parameters, inputs of the head, batch) -> losses, float32 [B].

    The head has loops, which XLA compiles as a whole: once per settings of the head, for all
    settings of the decoder.
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
    """The same parameters with layers unstacked: `layers/...` [L, ...] -> `layers_{i}/...`."""
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
    """The same model in float32 without a scan over layers, which each setting would compile."""
    return replace(config, scan_layers=False, layers_per_block=1, dtype="float32")
