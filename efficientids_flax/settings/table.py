"""The settings that jobs vary and that names and shapes of parameters do not show, as a table.

A checkpoint alone does not determine them: a conversion lists those that it assumed, and the search
for settings tries their values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, TimesFMConfig
from efficientids_flax.parameters import ModelConfig as AnyConfig
from efficientids_flax.parameters import parameter_shapes

ModelConfig = BackboneConfig | EfficientIDSConfig  # models whose settings can be found from data
Config = TypeVar("Config", bound=BackboneConfig | EfficientIDSConfig | TimesFMConfig)
BACKBONE = "backbone."  # prefix of the decoder's keys in a recommender's configuration
_shapes = lru_cache(maxsize=4)(parameter_shapes)  # a search changes one configuration many times


@dataclass(frozen=True)
class OpenSetting:
    """A setting that parameters do not show.

    Attributes:
        key: dotted name in `BackboneConfig`, or in the configuration of the table's model.
        values: values that PAXml jobs are known to use, as JSON, the likeliest first.
        matters: whether the setting can change results of a given decoder.
        affects: 'forward': activations and logits; 'training': losses and steps alone.
    """

    key: str
    values: tuple[Any, ...]
    matters: Callable[[BackboneConfig], bool] = lambda config: True
    affects: Literal["forward", "training"] = "forward"


def _mlp(config: BackboneConfig) -> bool:
    """Some layer has a plain MLP, without experts."""
    return config.moe is None or len(config.moe.layers) < config.num_layers


def _mixed_norms(config: BackboneConfig) -> bool:
    """Parameters show that norms differ by place; then `scale_plus_one` may differ too."""
    return config.norms is not None


def _routed(config: BackboneConfig) -> bool:
    return config.moe is not None


def _top2(config: BackboneConfig) -> bool:
    return config.moe is not None and config.moe.gating == "top2"


def _limited(config: BackboneConfig) -> bool:
    """Experts have a limited capacity."""
    return config.moe is not None and config.moe.gating != "dense_top2"


def _chosen_padding(config: BackboneConfig) -> bool:
    """Experts can choose padding too; otherwise the content of padding affects no other token."""
    return config.moe is not None and config.moe.gating == "expert_choice"


def _over_positions(config: BackboneConfig) -> bool:
    """The head is Praxis' GShard head, as the tree shows: no other averages over positions."""
    return config.vocab_size > 0 and config.loss_average == "positions"


def _turned(config: BackboneConfig) -> bool:
    return config.rotary is not None


def _waves(config: BackboneConfig) -> bool:
    return config.position_embedding == "sinusoidal"


def _biased(config: BackboneConfig) -> bool:
    return config.relative_bias is not None


def _words(config: BackboneConfig) -> bool:
    return config.vocab_size > 0


TIMESCALES = (10_000.0, 500_000.0, 1_000_000.0, 100_000.0, 1_000.0)
CAPS = (None, 50.0, 30.0, 20.0, 10.0, 5.0, 100.0)
# fmt: off
OPEN = (
    OpenSetting("activation", ("relu", "gelu_tanh", "silu", "squared_relu", "gelu", "relu6",
                               "leaky_relu", "elu", "tanh", "sigmoid", "softplus", "cubed_relu",
                               "sine_relu", "identity"), _mlp),
    OpenSetting("norm", ("rms_norm", "layer_norm")),
    OpenSetting("norm_scale_plus_one", (True, False)),
    OpenSetting("norm_epsilon", (1e-6, 1e-5, 1e-8, 1e-12, 1e-4, 1e-3, 1e-2)),
    OpenSetting("norms.mlp.scale_plus_one", (None, True, False), _mixed_norms),
    OpenSetting("norms.final.scale_plus_one", (None, True, False), _mixed_norms),
    OpenSetting("norm_policy", ("pre", "post", "post_skip", "primer_hybrid")),
    OpenSetting("parallel_residual", (False, True)),
    OpenSetting("mlp_adds_input", (False, True), lambda config: config.parallel_residual),
    OpenSetting("position_embedding", ("sinusoidal", "none")),
    OpenSetting("position_max_timescale", TIMESCALES, _waves),
    OpenSetting("rotary", (None, {"pairing": "half_split"}, {"pairing": "interleaved"})),
    OpenSetting("rotary.max_timescale", TIMESCALES, _turned),
    OpenSetting("rotary.fraction", (1.0, 0.5, 0.25), _turned),
    OpenSetting("embedding_scale", ("none", "sqrt_dim"), _words),
    OpenSetting("query_scaling", ("inverse_sqrt_head_dim", "none")),
    OpenSetting("attention_logit_cap", CAPS),
    OpenSetting("attention_extra_logit", (None, 0.0)),
    OpenSetting("attention_mask", ("causal", "bidirectional", "prefix")),
    OpenSetting("sliding_window", (None, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)),
    OpenSetting("relative_bias.max_distance", (128, 64, 256, 20, 32), _biased),
    OpenSetting("relative_bias.bidirectional", (False, True), _biased),
    OpenSetting("attention_residual_weight", (1.0, 0.5)),
    OpenSetting("mlp_residual_weight", (1.0, 0.5)),
    OpenSetting("mlp_padding_first", (False, True), _chosen_padding),
    OpenSetting("moe.residual_weight", (None, 1.0, 0.5), _routed),
    OpenSetting("moe.activation", ("relu", "gelu_tanh", "silu", "gelu", "squared_relu"), _routed),
    OpenSetting("moe.gating", ("top2", "expert_choice", "expert_choice_v2", "dense_top2"), _routed),
    OpenSetting("moe.capacity_factor", (2.0, 1.25, 1.0, 1.5, 4.0), _limited),
    OpenSetting("moe.expert_capacity", (0,), _limited),
    OpenSetting("moe.num_groups", (1, 2, 4, 8), _limited),
    OpenSetting("moe.min_group_size", (None,), _limited),
    OpenSetting("moe.second_expert_policy", ("all", "random"), _top2),
    OpenSetting("moe.gating_logit_cap", (0.0, 5.0, 10.0, 30.0), _top2),
    OpenSetting("moe.gating_level", ("token", "sentence"), _routed),
    OpenSetting("scale_before_logits", (False, True), _words),
    OpenSetting("final_logit_cap", CAPS, _words),
    OpenSetting("logits_clip", (None,), _over_positions),
    OpenSetting("input_dropout", (0.0, 0.1), affects="training"),
    OpenSetting("attention_dropout", (0.0, 0.1), affects="training"),
    OpenSetting("residual_dropout", (0.0, 0.1), affects="training"),
    OpenSetting("mlp_dropout", (0.0, 0.1), affects="training"),
    OpenSetting("label_smoothing", (0.0, 0.1), _words, affects="training"),
    OpenSetting("label_smoothing_in_eval", (True, False), _words, affects="training"),
    OpenSetting("z_loss_weight", (0.0, 1e-4), _words, affects="training"),
    OpenSetting("loss_average", ("positions", "weights"), _over_positions, affects="training"),
    OpenSetting("moe.load_balance_loss_weight", (1.0, 0.01, 0.0), _top2, affects="training"),
)
"""The open settings of a decoder."""
HEAD = ("scale_before_logits", "final_logit_cap", "logits_clip", "label_smoothing",
        "label_smoothing_in_eval", "z_loss_weight", "loss_average")
"""Open settings of the decoder's head; a recommender does not use it, as it has its own head."""
OPEN_ITEMS = (
    OpenSetting("soft_cap_logits", (None, 30.0, 50.0, 20.0, 10.0, 5.0)),
    OpenSetting("scale_before_logits", (False, True)),
    OpenSetting("use_correction", (False, True)),
    OpenSetting("full_softmax", (False, True)),
    OpenSetting("placeholder_item_id", (102, None)),
    OpenSetting("input_adapter.activation", ("gelu_tanh", "relu", "silu", "gelu", "tanh",
                                             "identity")),
    OpenSetting("output_adapter.activation", ("gelu_tanh", "relu", "silu", "gelu", "tanh",
                                              "identity")),
    OpenSetting("label_smoothing", (0.0, 0.1), affects="training"),
    OpenSetting("second_label_smoothing", (0.0, 0.1), affects="training"),
    OpenSetting("label_smoothing_in_eval", (False, True), affects="training"),
    OpenSetting("z_loss_weight", (0.0, 1e-4), affects="training"),
)
"""The open settings of a recommender, besides those of its decoder."""
OPEN_FORECAST = (
    OpenSetting("use_positional_embedding", (True, False)),
    OpenSetting("horizon_length", ()),
    OpenSetting("quantiles", ()),
    OpenSetting("context_length", ()),
)
"""The open settings of a forecaster; sizes have no list of values to try."""
# fmt: on


def open_settings(config: AnyConfig) -> dict[str, OpenSetting]:
    """The settings that can change this model's results: dotted key -> row."""
    if isinstance(config, BackboneConfig):
        return {row.key: row for row in OPEN if row.matters(config)}
    if isinstance(config, TimesFMConfig):
        return {row.key: row for row in OPEN_FORECAST}
    backbone, absent = config.backbone, () if config.output_adapter else ("output_adapter",)
    rows = {BACKBONE + row.key: row for row in OPEN if row.matters(backbone)}
    rows = {key: row for key, row in rows.items() if row.key not in HEAD}
    items = {row.key: row for row in OPEN_ITEMS if row.key.split(".")[0] not in absent}
    return rows | items


def value_at(config: AnyConfig, key: str) -> Any:
    """The JSON value at a dotted key; None if a record above it is None."""
    value: Any = config.to_dict()
    for name in key.split("."):
        value = None if value is None else value[name]
    return value


def with_values(config: Config, values: Mapping[str, Any]) -> Config | None:
    """The configuration with other values; None if they do not fit the model.

    Args:
        config: the configuration to start from.
        values: dotted key -> JSON value. A mapping replaces the fields of a record that it names,
            and creates the record if it is null.

    Returns:
        A configuration with the same parameters; None if the values contradict each other, or if a
        model with these values has other parameters.
    """
    document = config.to_dict()
    for key, value in values.items():
        *outer, name = key.split(".")
        place = document
        for part in outer:
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        merged = isinstance(value, Mapping) and isinstance(place.get(name), Mapping)
        place[name] = {**place[name], **value} if merged else value
    try:
        made = type(config).from_dict(document)
    except ValueError:
        return None
    return made if parameter_shapes(made) == _shapes(config) else None
