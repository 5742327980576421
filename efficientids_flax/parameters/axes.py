"""Path, shape and axis letters of every parameter of a configuration.

Letters are those of `tables`, and: E item width, I items, K clusters, G frequencies, 2P points of a
patch with their padding, HQ numbers of a patch's forecast.
"""

from collections.abc import Iterator
from itertools import pairwise

from efficientids_flax.config import (
    AdapterConfig,
    BackboneConfig,
    EfficientIDSConfig,
    TimesFMConfig,
)
from efficientids_flax.parameters.tables import (
    ATTENTION,
    ATTENTION_NORM,
    BLOCK,
    CONDITIONS,
    FINAL_NORM,
    LORA,
    MLP,
    MLP_LORA,
    MLP_NORM,
    MOE,
    QUERY_KEY_NORM,
    SHARED,
    TOP,
    Row,
)

Shapes = dict[str, tuple[int, ...]]
Axis = tuple[str, int]  # letter, size
Axes = tuple[Axis, ...]
ModelConfig = BackboneConfig | EfficientIDSConfig | TimesFMConfig

DECODER = "decoder/"  # prefix of a forecaster's decoder
BACKBONE = "pretrained_lm/"
LORA_A, LORA_B = "lora_a", "lora_b"
# What `freeze_lm` freezes, as a pattern for `train.optimizer.freeze`: the decoder without its
# low-rank additions.
FROZEN_LM = f"re:{BACKBONE}(?!.*/({LORA_A}|{LORA_B})$).*"


def parameter_shapes(config: ModelConfig) -> Shapes:
    """Path -> shape of every parameter of a model, in no particular order."""
    return {path: tuple(size for _, size in axes) for path, axes in parameter_axes(config).items()}


def parameter_axes(config: ModelConfig) -> dict[str, Axes]:
    """Path -> (letter, size) of every axis of every parameter of a model.

    L is the axis of scanned layers, A the hidden width of an adapter, 3 the axis of query, key and
    value.
    """
    if isinstance(config, BackboneConfig):
        return _backbone(config)
    if isinstance(config, TimesFMConfig):
        return _forecaster(config)
    found = {BACKBONE + path: axes for path, axes in _backbone(config.backbone).items()}
    width, model = ("E", config.item_embedding_dim), ("D", config.backbone.model_dims)
    found["item_embedding/kernel"] = (width, ("I", config.num_items))
    if config.trainable_cluster_embeddings and not config.full_softmax:
        found["cluster_embedding/kernel"] = (width, ("K", config.num_clusters or 0))
    found |= _adapter("item_input_adapter", config.input_adapter, width, model)
    if config.output_adapter is not None:
        found |= _adapter("item_output_adapter", config.output_adapter, model, width)
    return found


def _backbone(config: BackboneConfig) -> dict[str, Axes]:
    sizes = _sizes(config)
    found = dict(_rows(config, TOP, sizes))
    found |= _rows(config.of_norm("final"), FINAL_NORM, sizes)
    experts = config.moe.layers if config.moe else ()
    if not config.scan_layers:
        for layer in range(config.num_layers):
            own = config.of_layer(layer)
            found |= _layer(own, f"layers_{layer}/", layer in experts, ())
        return found
    count = config.layers_per_block
    for block in range(count):
        prefix = "layers/" if count == 1 else f"layers/block_{block}/"
        leading = (("L", config.num_layers // count),)
        found |= _layer(config.of_layer(block), prefix, block in experts, leading)
    return found


def _forecaster(config: TimesFMConfig) -> dict[str, Axes]:
    """The decoder, its input and output blocks, and the table of frequencies."""
    found = {DECODER + path: axes for path, axes in _backbone(config.backbone).items()}
    width, hidden = ("D", config.model_dims), ("F", config.hidden_dims)
    ends = {
        "input_block": (("2P", 2 * config.patch_length), width),
        "horizon_block": (width, ("HQ", config.horizon_length * config.num_outputs)),
    }
    for name, (first, last) in ends.items():
        sizes = {"I": first, "F": hidden, "O": last}
        found |= {f"{name}/{r.path}": tuple(sizes[a] for a in r.axes.split()) for r in BLOCK}
    if config.num_frequencies:
        found["frequency_embedding/embedding"] = (("G", config.num_frequencies), width)
    return found


def _layer(config: BackboneConfig, prefix: str, moe: bool, leading: Axes) -> dict[str, Axes]:
    sizes = _sizes(config)
    if moe and config.moe is not None:
        sizes |= {"X": config.moe.num_experts, "F": config.moe.hidden_dims}
    rows = (*ATTENTION, *ATTENTION_NORM, *(MOE if moe else MLP), *_lora_rows(config, moe))
    found = [
        *_rows(config, rows, sizes),
        *_rows(config.of_norm("query_key"), QUERY_KEY_NORM, sizes),
    ]
    if moe and config.moe is not None:
        found += _rows(config, SHARED, sizes | {"F": config.moe.shared_dims or 0})
    if not config.shared_norm:
        found += _rows(config.of_norm("moe" if moe else "mlp"), MLP_NORM, sizes)
    return {prefix + path: leading + axes for path, axes in found}


def _lora_rows(config: BackboneConfig, moe: bool) -> list[Row]:
    """The rows of the projections that LoRA adapts."""
    if config.lora is None:
        return []
    rows = LORA if moe else (*LORA, *MLP_LORA)
    return [row for row in rows if config.lora.adapts(row.path.rpartition("/")[0])]


def _rows(
    config: BackboneConfig, rows: tuple[Row, ...], sizes: dict[str, int]
) -> Iterator[tuple[str, Axes]]:
    """Path and axes, with sizes, of the rows whose conditions hold."""
    for row in rows:
        if all(CONDITIONS[word](config) for word in row.when.split()):
            turned = config.kernel_axes == "out_in" and row.out_in
            axes = (row.out_in if turned else row.axes).split()
            yield row.path, tuple((axis, sizes[axis]) for axis in axes)


def _sizes(config: BackboneConfig) -> dict[str, int]:
    latent = config.latent_attention
    widths = {}
    if latent is not None:
        widths = {
            "Q": latent.query_dims or 0,
            "C": latent.latent_dims,
            "Y": latent.latent_dims + latent.rotary_dims,
            "Z": config.head_dim - latent.rotary_dims,
            "O": latent.value_dims,
        }
    return widths | {
        "1": 1,
        "3": 3,
        "V": config.vocab_size,
        "T": (config.max_positions or 0) + config.position_offset,
        "D": config.model_dims,
        "W": config.embedding_dims or config.model_dims,
        "N": config.num_heads,
        "J": config.num_kv_heads,
        "H": config.head_dim,
        "F": config.hidden_dims,
        "R": config.relative_bias.num_buckets if config.relative_bias else 0,
        "P": config.relative_key_dims or 0,
        "U": config.lora.rank if config.lora else 0,
    }


def _adapter(name: str, config: AdapterConfig, first: Axis, last: Axis) -> dict[str, Axes]:
    """An MLP's kernels [in, out] and biases [out]."""
    hidden = [("A", config.hidden_dims or 0)] * (config.num_layers - 1)
    found: dict[str, Axes] = {}
    for layer, (before, after) in enumerate(pairwise([first, *hidden, last])):
        found[f"{name}/layers_{layer}/kernel"] = (before, after)
        found[f"{name}/layers_{layer}/bias"] = (after,)
    return found
