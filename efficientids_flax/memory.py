"""Estimates the memory that a model needs from its configuration, before anything is loaded.

    estimate_memory(config, batch_size=8, sequence_length=128, mode="training").total

Parameters and optimizer state are exact. Activations are counted from what the modules compute, and
are within a factor of two of the temporary memory that XLA reports of a compiled step (measured on
CPUs in float32, at sizes where small arrays do not count; in bfloat16 CPUs hold float32 copies).
XLA's CPU compiler undoes the rematerialisation of layers that are not scanned.

Letters: B batch, T time, S keys, D model width, N heads, J heads of keys and values, H head width,
F hidden width of the MLP, V words, L layers, I items, K clusters, M slots of the largest cluster, W
width of query and tables, X experts and C their capacity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, OptimizerConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.stored import WIDTHS
from efficientids_flax.text import size_text
from efficientids_flax.tree import unflatten

Mode = Literal["inference", "training", "generation"]

FLOAT32 = 4  # bytes: norms, softmaxes and losses compute in it
SCORES_AT_ONCE = 1 << 19  # scores in memory at a time in retrieval, see `core/retrieval.py`
VISITED = 1 << 24  # bytes of rows that the loss adapts at a time, see `core/head/second/visits.py`


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by part.

    Attributes:
        parameters: exact.
        optimizer_state: exact.
        master: float32 copies of the trained parameters in half precision, exact.
        gradients: gradients of the trained parameters.
        activations: peak of the decoder's layers.
        head: logits, and memory for the loss or the scores of items.
        cache: keys and values of earlier tokens.
    """

    parameters: int
    optimizer_state: int = 0
    master: int = 0
    gradients: int = 0
    activations: int = 0
    head: int = 0
    cache: int = 0

    @property
    def total(self) -> int:
        """All parts."""
        return sum(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        rows = [(field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)]
        rows = [(name, value) for name, value in rows if value]
        return "\n".join(
            f"{name:16s}{size_text(value):>10s}" for name, value in [*rows, ("total", self.total)]
        )


def estimate_memory(
    config: BackboneConfig | EfficientIDSConfig,
    batch_size: int,
    sequence_length: int,
    *,
    mode: Mode = "inference",
    optimizer: OptimizerConfig | Any | None = None,
    remat: str | None = None,
    dtype: str | None = None,
    param_dtype: str | None = None,
) -> MemoryEstimate:
    """Memory that a model needs on a single device.

    Args:
        config: configuration of the model.
        batch_size, sequence_length: B, T of a batch; with 'generation', T is the whole text.
        mode: 'inference': hidden states and scores, for a recommender as in `inference.recommend`
            (at one position of each row, in chunks of the catalogue); 'training': loss and
            gradients; 'generation': one token at a time with a cache.
        optimizer: for training: its configuration, or any optax transformation. Parameters that it
            freezes (`create_optimizer`, a configuration) are not trained.
        remat: whether layers are rematerialised (the `Decoder`'s field). Policies that keep more
            than layer inputs need more memory than estimated here.
        dtype, param_dtype: dtypes instead of the configuration's.

    Raises:
        ValueError: sizes are not positive, or the mode is unknown.
        TypeError: the model is of another kind, such as a forecaster.
    """
    if not isinstance(config, BackboneConfig | EfficientIDSConfig):
        kind = type(config).__name__
        raise TypeError(f"config: the memory of a {kind} is not estimated, a decoder's is")
    for name, value in (("batch_size", batch_size), ("sequence_length", sequence_length)):
        if value < 1:
            raise ValueError(f"{name}: expected above 0, found {value}")
    if mode not in ("inference", "training", "generation"):
        raise ValueError(f"mode: expected inference, training or generation, found {mode!r}")
    backbone = config if isinstance(config, BackboneConfig) else config.backbone
    numbers = WIDTHS[dtype or backbone.dtype]
    stored = WIDTHS[param_dtype or backbone.param_dtype]
    shapes = parameter_shapes(config)
    parameters = stored * sum(map(math.prod, shapes.values()))
    positions = batch_size * (1 if mode == "generation" else sequence_length)
    training = mode == "training"
    trained = _trained(optimizer, config, shapes) if training else {}
    layers = _layers(backbone, positions, sequence_length, numbers, training, remat is not None)
    if isinstance(config, BackboneConfig):
        head = _word_head(positions, backbone.vocab_size, numbers, training)
    else:
        head = _item_head(config, batch_size, positions, numbers, training)
    own = map(backbone.of_layer, range(backbone.num_layers))
    cached = sum(h * width for layer in own for h, width in layer.cached) * numbers
    return MemoryEstimate(
        parameters=parameters,
        optimizer_state=_optimizer_state(optimizer, config, trained),
        master=FLOAT32 * sum(map(math.prod, trained.values())) if stored < FLOAT32 else 0,
        gradients=stored * sum(map(math.prod, trained.values())),
        activations=layers,
        head=head,
        cache=batch_size * sequence_length * cached if mode == "generation" else 0,
    )


def _layers(
    config: BackboneConfig, positions: int, keys: int, numbers: int, training: bool, remat: bool
) -> int:
    """Bytes of the decoder's layers: all that the backward pass needs; in inference, one layer."""
    width, hidden = config.model_dims, config.hidden_dims
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    gated = int(config.gated_mlp)
    stream = 2 * width * numbers  # the output of both sublayers
    norms = 2 * width * numbers
    turned = 1 if config.rotary is None else 2
    attention = (2 * query + (turned + 1) * (query + 2 * key)) * numbers // 2
    # Probabilities, once more if heads share keys, and once more for capped logits.
    shapes = 1 + (config.num_heads > config.num_kv_heads) + bool(config.attention_logit_cap)
    probs = config.num_heads * keys * shapes * FLOAT32
    mlp = (2 + gated) * hidden * numbers
    if config.moe is not None:
        mlp = max(mlp, _experts(config, positions, numbers))
    kept = stream + norms + attention + probs + mlp
    if not training:
        return positions * (width * numbers * 3 + max(attention + probs, mlp, norms))
    if remat:
        return positions * (config.num_layers * width * numbers + kept)
    return positions * (config.num_layers * kept + kept)


def _experts(config: BackboneConfig, positions: int, numbers: int) -> int:
    """Bytes per position of a layer with experts: hidden values and routing.

    The two routing tables are [X, C] per position; X C is the group's size times the capacity
    factor, at least.
    """
    moe = config.moe
    assert moe is not None
    hidden = (2 + 2 * int(moe.gated)) * moe.hidden_dims + 2 * config.model_dims
    if moe.gating == "dense_top2":  # all experts see all positions
        return moe.num_experts * hidden * numbers
    group = max(positions // moe.num_groups, min(moe.min_group_size or 1, positions))
    room = max(moe.expert_capacity * moe.num_experts, (moe.capacity_factor or 0) * group)
    return int(2 * room * FLOAT32 + max(room / group, 1.0) * hidden * numbers)


def _word_head(positions: int, words: int, numbers: int, training: bool) -> int:
    """Bytes of logits; in training also of the float32 softmax, the loss, and gradients."""
    return positions * words * ((numbers + 4 * FLOAT32) if training else numbers)


def _item_head(
    config: EfficientIDSConfig,
    rows: int,
    positions: int,
    numbers: int,
    training: bool,
) -> int:
    """Bytes of tables, both softmaxes, and a chunk of retrieval."""
    everywhere = config.input_adapter_everywhere
    width = config.backbone.model_dims if everywhere else config.item_embedding_dim
    clusters = 0 if config.full_softmax else _num_clusters(config)
    table = (config.num_items + clusters) * width * numbers
    words = config.backbone.vocab_size
    if not training:
        chunk = min(rows * config.num_items, max(SCORES_AT_ONCE, 1024 * rows))
        return table + rows * (words + 4 * clusters) * FLOAT32 + 4 * chunk * FLOAT32
    classes = words + (config.num_items if config.full_softmax else clusters)
    first = positions * classes * (numbers + 4 * FLOAT32)
    if config.full_softmax:
        # The table, its values before the activation, and the gradients of both.
        return first + (3 * table if everywhere else table)
    turned = config.num_items * config.item_embedding_dim * numbers
    wide = max(width, config.item_embedding_dim)
    adapted = min(config.num_items, VISITED // (FLOAT32 * wide))
    together = min(512, max(8, 2 * positions // max(clusters, 1)))  # positions per cluster
    return first + turned + adapted * (4 * wide * numbers + 3 * together * FLOAT32)


def _num_clusters(config: EfficientIDSConfig) -> int:
    """K; if the configuration leaves it to the clustering, the original's default."""
    return config.num_clusters or math.ceil(math.sqrt(config.num_items))


def _trained(
    optimizer: OptimizerConfig | Any | None,
    config: BackboneConfig | EfficientIDSConfig,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:
    """Path -> shape of the parameters that an optimizer does not freeze."""
    from efficientids_flax.train.optimizer import excluded_by, matcher, variables_of

    frozen = getattr(optimizer, "frozen_params", None)
    if isinstance(optimizer, OptimizerConfig):
        frozen = excluded_by(optimizer, variables_of(config, optimizer.vectorize_on_repeat_prefix))
    if not frozen:
        return dict(shapes)
    fits = frozen if callable(frozen) else matcher(frozen)
    return {path: shape for path, shape in shapes.items() if not fits(path)}


def _optimizer_state(
    optimizer: OptimizerConfig | Any | None,
    config: BackboneConfig | EfficientIDSConfig,
    trained: Mapping[str, tuple[int, ...]],
) -> int:
    """Bytes of the state of `optimizer.init` for float32 parameters; it is traced, not run."""
    if optimizer is None or not trained:
        return 0
    import jax

    from efficientids_flax.train.optimizer import paxml_learner

    leaves = {path: jax.ShapeDtypeStruct(shape, "float32") for path, shape in trained.items()}
    if isinstance(optimizer, OptimizerConfig):
        optimizer = paxml_learner(optimizer, config)
    state = jax.tree.leaves(jax.eval_shape(optimizer.init, unflatten(leaves)))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in state)
