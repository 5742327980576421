"""Writes a decoder's configuration as the `config.json` of a HuggingFace family.

It uses the tables of the presets, and the presets read the result again. The family is accepted
only if the same computation comes back; every difference is listed.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.errors import MappingError
from converters.huggingface.export.rotary_json import LONGEST, ORIGINAL, Json, rotary_keys
from converters.huggingface.tables import TABLES
from efficientids_flax.backbone.presets import (
    ACTIVATIONS,
    FAMILIES,
    IRRELEVANT,
    Family,
    UnsupportedConfigError,
    config_of,
)
from efficientids_flax.config import BackboneConfig, RotaryConfig

# Keys about the file itself, and about the program that wrote it, which is now another.
STALE = {"_name_or_path", "name_or_path", "auto_map", "torch_dtype", "dtype", "architectures",
         "model_type", "transformers_version", "_commit_hash"}  # fmt: skip
# Fields that do not affect hidden states or logits, except by dropout.
TRAINING = {
    "input_dropout", "attention_dropout", "residual_dropout", "mlp_dropout", "label_smoothing",
    "label_smoothing_in_eval", "z_loss_weight",
}  # fmt: skip
# Fields for how the model is stored or run; the values are rearranged to the family's form.
ARRANGEMENT = {
    "scan_layers", "layers_per_block", "param_dtype", "kernel_axes", "multi_query", "fused_qkv",
    "attention_implementation",
}  # fmt: skip
ROUNDING = {"norm_scale_in_float32", "rotary.in_float32", "rotary.by_frequency"}
NUMBERS = {"inverse_sqrt_head_dim": lambda c: float(c.head_dim) ** -0.5,
           "sqrt_dim": lambda c: math.sqrt(c.model_dims), "none": lambda c: 1.0}  # fmt: skip


def config_json(
    config: BackboneConfig, family: str, known: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[Json, list[str]]:
    """Make the `config.json` of a family that computes the same as the configuration.

    Args:
        config: configuration of the decoder.
        family: a key of `TABLES`.
        known: the `config.json` that the model came with; its tokens and the like are kept.
        given: the user's keys and values, which take precedence.

    Returns:
        The content, with the keys of both styles, and notes.

    Raises:
        MappingError: lists everything that the family cannot express.
    """
    values = _values(config, FAMILIES[family], known)
    values = {
        "architectures": [_architecture(config, family)],
        "model_type": family,
        "dtype": config.dtype,
        "torch_dtype": config.dtype,
        **values,
        **given,
    }
    try:
        theirs = config_of(values)
        if not config.lm_head:  # `architectures` says so
            theirs = replace(theirs, lm_head=False, tied_embeddings=False, lm_head_bias=False)
        problems, notes = _differences(config, theirs)
    except UnsupportedConfigError as error:
        raise MappingError(f"family {family}: {error}") from error
    if problems:
        raise MappingError(
            "\n  ".join([f"family {family} does not compute this model:", *problems])
        )
    return values, notes


def _architecture(config: BackboneConfig, family: str) -> str:
    """The class that the file is for; the class of the body if there is no head."""
    name = TABLES[family].architecture
    return name if config.lm_head else re.sub("(ForCausalLM|LMHeadModel)$", "Model", name)


def choose_family(
    config: BackboneConfig, known: Mapping[str, Any], given: Mapping[str, Any]
) -> str:
    """Choose the family that the model came from if it fits, else the first that fits.

    Raises:
        MappingError: none fits; the message says what the nearest cannot express.
    """
    first = known.get("model_type")
    names = sorted(TABLES, key=lambda name: name != first)
    refusals: list[str] = []
    for name in names:
        try:
            config_json(config, name, known, given)
        except MappingError as error:
            refusals.append(str(error))
        else:
            return name
    nearest = min(refusals, key=lambda text: text.count("\n"))
    raise MappingError(f"no family computes this model; the nearest: {nearest}")


def _values(config: BackboneConfig, family: Family, known: Mapping[str, Any]) -> Json:
    """All keys except those that name the family."""
    # The class's own padding token may be outside the vocabulary; then the model does not load.
    values: Json = {"pad_token_id": None}
    values |= {key: known[key] for key in sorted(IRRELEVANT - STALE) if key in known}
    own_name = family.generic.get(LONGEST, LONGEST)
    longest = known.get(LONGEST, known.get(own_name))
    if longest is not None and own_name in family.defaults:
        values[own_name] = longest
    for name, key in family.fields.items():
        values[key] = _value(config, name, key, family)
    derived = config.head_dim * config.num_heads == config.model_dims
    if derived and "head_dim" in family.extra:
        values.pop("head_dim", None)  # not all classes have it, and some do not accept None
    values |= _layer_keys(config, family)
    values |= family.express(config) if family.express else {}
    both = config.attention_mask == "bidirectional"
    if both and "use_bidirectional_attention" not in family.defaults:
        values |= _both_ways(config, values)
    turns = _turns(config)
    if config.rotary is not None or family.rotary == "by_layer_type":
        values |= rotary_keys(turns.get("full"), turns.get("sliding"), family, longest)
    growth, key = config.query_position_scaling, family.position_scaling_key
    for settings in (values.get("rope_parameters"), values.get("rope_scaling")):
        if settings and key is not None:
            settings[key] = growth.beta if growth else 0.0
            settings.setdefault(ORIGINAL, growth.length if growth else 1)
    return values


def _value(config: BackboneConfig, name: str, key: str, family: Family) -> Any:
    """The value of a key that corresponds to one field."""
    value = getattr(config, name)
    if name == "activation":
        names = (family.defaults[key], *ACTIVATIONS)
        return next((name for name in names if ACTIVATIONS[name] == value), value)
    if name not in ("query_scaling", "embedding_scale"):
        return value
    if key == "scale_attn_weights":
        return value != "none"
    number = _number(config, value)
    if number is None or key != "query_pre_attn_scalar":
        return number
    whole = round(number**-2)
    return whole if float(whole) ** -0.5 == number else number**-2


def _number(config: BackboneConfig, value: Any) -> float | None:
    """A scale as a number; None if it is not a number."""
    if isinstance(value, str):
        return NUMBERS[value](config) if value in NUMBERS else None
    return float(value)


def _kinds(config: BackboneConfig) -> list[str]:
    """'full' or 'sliding' for each layer."""
    kind = "full" if config.sliding_window is None else "sliding"
    return list(config.layer_types) or [kind] * config.num_layers


def _turns(config: BackboneConfig) -> dict[str, RotaryConfig | None]:
    """The rotary settings for each kind of layer that occurs."""
    kinds = {"full": config.rotary, "sliding": config.sliding_rotary or config.rotary}
    return {kind: turn for kind, turn in kinds.items() if kind in _kinds(config)}


def _layer_keys(config: BackboneConfig, family: Family) -> Json:
    """Keys for the layers with a window and those without rotary positions, in both styles."""
    found: Json = {}
    kinds, window = _kinds(config), config.sliding_window
    slides = [kind == "sliding" for kind in kinds]
    if "no_rope_layers" in family.defaults:
        skipped = config.no_rotary_layers
        found["no_rope_layers"] = [int(layer not in skipped) for layer in range(config.num_layers)]
    if "sliding_window" not in family.defaults:
        return found
    found["sliding_window"] = window if any(slides) else None
    if "use_sliding_window" in family.defaults:
        found["use_sliding_window"] = any(slides)
    if "layer_types" not in family.defaults:
        return found
    found["layer_types"] = [f"{kind}_attention" for kind in kinds]
    if "use_sliding_window" not in family.defaults and not any(slides):
        found["sliding_window"] = family.defaults["sliding_window"]
    if "max_window_layers" in family.defaults:
        found["max_window_layers"] = slides.index(True) if any(slides) else config.num_layers
    if "sliding_window_pattern" in family.defaults:
        periods = range(1, config.num_layers + 2)
        fits = [p for p in periods if slides == [bool((i + 1) % p) for i in range(len(slides))]]
        found |= {"sliding_window_pattern": fits[0]} if fits else {}
    return found


def _both_ways(config: BackboneConfig, values: Json) -> Json:
    """Keys for bidirectional attention, with windows as `transformers` counts them there."""
    found: Json = {"is_causal": False}
    if values.get("sliding_window") is not None and config.sliding_window is not None:
        found["sliding_window"] = config.sliding_window - 1
    return found


def _differences(ours: BackboneConfig, theirs: BackboneConfig) -> tuple[list[str], list[str]]:
    """Differences in what the family computes: problems, and those that may be ignored as notes."""
    problems, notes = [], []
    half = ours.dtype in ("bfloat16", "float16")
    wanted, found = _computation(ours), _computation(theirs)
    for name in sorted(wanted.keys() | found.keys()):
        value, other = wanted.get(name), found.get(name)
        if value == other:
            continue
        line = f"{name}: the model has {value!r}, the family {other!r}"
        if name == "norm_scale_plus_one" and value and ours.dtype == "float32":
            notes.append(f"{line}; 1 is added to the scales, in float32 as the model does")
        elif name in TRAINING:
            notes.append(f"{line}; it is of training alone")
        elif name.rpartition("@")[0] in ROUNDING or name in ROUNDING:
            if half:
                notes.append(f"{line}; {ours.dtype} is rounded elsewhere, float32 is the same")
        else:
            problems.append(line)
    return problems, notes


def _computation(config: BackboneConfig) -> Json:
    """What a configuration computes, in a normal form: name -> value."""
    kinds = _kinds(config)
    found = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ARRANGEMENT | {"rotary", "sliding_rotary", "layer_types"}
    }
    for name in ("query_scaling", "embedding_scale"):
        number = _number(config, found[name])
        found[name] = found[name] if number is None else number
    found["scale_injected_embeddings"] &= found["embedding_scale"] != 1.0
    if config.position_embedding != "learned":
        found["max_positions"] = None
    if config.moe is not None and len(config.moe.layers) == config.num_layers:
        found["hidden_dims"] = None
    if config.norm == "layer_norm":
        found["norm_scale_in_float32"] = True  # LayerNorm always is
    if config.position_embedding != "sinusoidal":
        del found["position_min_timescale"], found["position_max_timescale"]
    if "sliding" not in kinds:
        found |= {"sliding_window": None, "sliding_window_ahead": None}
    found["layer_types"] = tuple(kinds)
    for kind, turn in _turns(config).items():
        parts: Json = turn.to_dict() if turn is not None else {"max_timescale": None}
        scaling = turn.scaling if turn is not None else None
        if scaling is not None and scaling.kind in ("linear", "proportional"):
            parts["scaling"] = replace(scaling, original_max_positions=None).to_dict()
        if turn is not None:
            if turn.fraction == 1:
                del parts["pairing"]  # the export reorders pairs
            parts.pop("by_frequency", None)  # only affects their last bit
        found |= {f"rotary.{name}@{kind}": value for name, value in parts.items()}
    return found
