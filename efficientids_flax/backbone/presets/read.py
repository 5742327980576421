"""A HuggingFace `config.json` as a `BackboneConfig`; unsupported settings are refused by name.

Neither JAX nor transformers is needed.
"""

import json
import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, get_args

from efficientids_flax.backbone.presets.families import (
    ACTIVATIONS,
    CAUSAL,
    WRAPPERS,
    Family,
    no_rotary_layers,
)
from efficientids_flax.backbone.presets.folder import pretrained_folder
from efficientids_flax.backbone.presets.keys import (
    complete,
    named,
    refused,
    unread,
    without,
)
from efficientids_flax.backbone.presets.rotary import read_position_scaling, read_rotary
from efficientids_flax.backbone.presets.text_part import (
    UnsupportedConfigError,
    says_no_head,
    text_part,
)
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.parts import DType
from efficientids_flax.config.record import listed

logger = logging.getLogger(__name__)
CONFIG, AUTO = "config.json", "auto"
DTYPE_NAMES = {AUTO: "float32", "float": "float32", "half": "float16", "double": "float64"}


def backbone_config(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str = "main",
    ignore_keys: Collection[str] = (),
) -> BackboneConfig:
    """The configuration of a pretrained language model, from its `config.json` alone.

    `architectures` tells whether there is a head.

    Args:
        name_or_path: folder with a `config.json`, or a name in the HuggingFace cache of this
            machine, such as 'Qwen/Qwen3-0.6B'.
        revision: branch, tag or commit, for a name.
        ignore_keys: keys of the `config.json`, or of its rotary settings, to treat as missing: keys
            that are refused, but that you know to have no effect.

    Raises:
        FileNotFoundError: there is no such folder, and no such name in the cache.
        UnsupportedConfigError: lists everything that is not supported.
    """
    notes: list[str] = []
    values = read_config_json(pretrained_folder(name_or_path, revision))
    config = config_of(values, ignore_keys, notes)
    for note in notes:
        logger.warning("%s: %s", name_or_path, note)
    if says_no_head(values) and not (config.tied_embeddings and not config.lm_head_bias):
        return replace(config, lm_head=False, tied_embeddings=False, lm_head_bias=False)
    return config


def read_config_json(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Content of a folder's `config.json`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a JSON object.
    """
    path = os.path.join(folder, CONFIG)  # noqa: PTH118 (the folder may be any path-like)
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            found = json.load(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder}: has no {CONFIG}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(found).__name__}")
    return found


def model_type(values: Mapping[str, Any]) -> str:
    """The family of a configuration, by the tensors it has: a key of `FAMILIES`.

    Raises:
        UnsupportedConfigError: the family is not known.
    """
    return text_part(values)[0]


def config_of(
    values: Mapping[str, Any],
    ignore_keys: Collection[str] = (),
    notes: list[str] | None = None,
) -> BackboneConfig:
    """The decoder's configuration from the content of a `config.json` of transformers 4 or 5.

    Args:
        values: content of the file.
        ignore_keys: see `backbone_config`.
        notes: receives notes on keys that are not read.

    Raises:
        UnsupportedConfigError: lists everything that is not supported.
    """
    values = without(values, ignore_keys)
    _, family, text = text_part(values)
    wrapped = values["model_type"] in WRAPPERS
    problems = _quantized(values, family)
    if "text_config" in values:
        problems += _quantized(text, family)
    values = without(text, ignore_keys)
    remarks: list[str] = []
    values = named(values, family, remarks)
    remarks += unread(values, family)
    problems += refused(values, family)
    mistyped: list[str] = []
    given = complete(values, family, mistyped)
    if mistyped:
        raise UnsupportedConfigError(_listed(values, [*problems, *mistyped]))
    rotary, sliding_rotary = read_rotary(given, family, problems, remarks)
    fields = _fields(given, family, problems)
    fields |= _layers(given, family, problems)
    if family.position_scaling_key is not None:
        fields["query_position_scaling"] = read_position_scaling(given, family, problems)
    fields |= family.derive(given, problems) if family.derive else {}
    if fields.get("head_dim") is None:
        fields["head_dim"], rest = divmod(fields["model_dims"], fields["num_heads"])
        if rest:
            key = family.fields["model_dims"]
            problems.append(f"{key}: {fields['model_dims']} is no multiple of the number of heads")
    if wrapped:  # the wrapper classes compute plain logits, without divisor or cap
        fields |= {"logits_divisor": 1.0, "final_logit_cap": None}
    if not values.get(CAUSAL, True):
        _see_all(fields)
    if problems:
        raise UnsupportedConfigError(_listed(values, problems))
    if "no_rope_layers" in family.defaults:
        fields["no_rotary_layers"] = no_rotary_layers(given)
    if rotary == sliding_rotary or "layer_types" not in fields:
        # All layers are of one kind, or rotate alike.
        slides = fields.get("sliding_window") is not None and "layer_types" not in fields
        rotary, sliding_rotary = (sliding_rotary or rotary) if slides else rotary, None
    try:
        config = BackboneConfig(
            **{
                "rotary": rotary,
                "sliding_rotary": sliding_rotary,
                "kernel_axes": family.kernel_axes,
                **fields,
            }
        )
    except ValueError as error:
        raise UnsupportedConfigError(_listed(values, [str(error)])) from error
    if notes is not None:
        notes += remarks
    return config


def _see_all(fields: dict[str, Any]) -> None:
    """Make attention bidirectional, as the masks of transformers do for `is_causal: false`.

    A window then reaches its size to both sides, one token further than a causal one.
    """
    fields["attention_mask"] = "bidirectional"
    if fields.get("sliding_window") is not None:
        size = fields["sliding_window"] + 1
        fields |= {"sliding_window": size, "sliding_window_ahead": size}


def _fields(values: Mapping[str, Any], family: Family, problems: list[str]) -> dict[str, Any]:
    """Fields of `BackboneConfig` that depend on a single key each."""
    fields = dict(family.fixed) | {name: values[key] for name, key in family.fields.items()}
    dtype = str(values.get("dtype") or values.get("torch_dtype") or AUTO).removeprefix("torch.")
    dtype = DTYPE_NAMES.get(dtype, dtype)
    if dtype not in get_args(DType):
        problems.append(
            f"dtype: '{dtype}' is not supported; known are {', '.join(get_args(DType))}"
        )
    activation = fields["activation"]
    if values["model_type"] == "gemma" and activation == "gelu":
        activation = "gelu_pytorch_tanh"  # Gemma's class computes this for "gelu"
    if activation is None:
        activation = family.defaults[family.fields["activation"]]
    if activation not in ACTIVATIONS:
        key = family.fields["activation"]
        known = ", ".join(ACTIVATIONS)
        problems.append(f"{key}: '{activation}' is not supported; known are {known}")
    fields |= {"activation": ACTIVATIONS.get(activation), "dtype": dtype, "param_dtype": dtype}
    for name in ("attention_dropout", "residual_dropout", "input_dropout"):
        fields[name] = fields.get(name) or 0.0
    if fields.get("num_kv_heads") is None:
        fields["num_kv_heads"] = fields["num_heads"]
    if fields["hidden_dims"] is None:
        fields["hidden_dims"] = 4 * fields["model_dims"]  # GPT-2
    return fields | _scales(fields, family, problems)


def _scales(fields: dict[str, Any], family: Family, problems: list[str]) -> dict[str, Any]:
    """The fields `query_scaling` and `embedding_scale`."""
    found: dict[str, Any] = {}
    key = family.fields.get("query_scaling")
    if key == "query_pre_attn_scalar" and not fields["query_scaling"] > 0:
        problems.append(f"{key}: expected a number above 0, found {fields['query_scaling']!r}")
    elif key == "query_pre_attn_scalar":
        found["query_scaling"] = float(fields["query_scaling"]) ** -0.5
    elif key == "scale_attn_weights":
        found["query_scaling"] = "inverse_sqrt_head_dim" if fields["query_scaling"] else "none"
    elif key:
        found["query_scaling"] = float(fields["query_scaling"])
    if "embedding_scale" in family.fields:
        found["embedding_scale"] = float(fields["embedding_scale"])
    return found


def _layers(values: Mapping[str, Any], family: Family, problems: list[str]) -> dict[str, Any]:
    """The fields `sliding_window` and `layer_types`, the latter only if layers differ."""
    types = (family.layer_types(values) or [])[: values[family.fields["num_layers"]]]
    kinds = {"full_attention": "full", "sliding_attention": "sliding", "attention": "full"}
    unknown = [kind for kind in dict.fromkeys(types or ()) if kind not in kinds]
    problems += [f"layer_types: '{kind}' is not supported" for kind in unknown]
    if unknown or "sliding_attention" not in types:
        return {}
    window = values.get("sliding_window")
    unused = "use_sliding_window" in family.defaults and not values["use_sliding_window"]
    if window is None or unused:
        problems.append("sliding_window: layer_types has sliding layers, but no window is in use")
        return {}
    found: dict[str, Any] = {"sliding_window": window}
    if set(types) != {"sliding_attention"}:
        found["layer_types"] = tuple(kinds[kind] for kind in types)
    return found


def _quantized(values: Mapping[str, Any], family: Family) -> list[str]:
    """A problem if the weights are quantised by a method that the family's loader cannot decode."""
    found = values.get("quantization_config") or values.get("compression_config")
    if not found:
        return []
    method = found.get("quant_method", "unknown") if isinstance(found, Mapping) else found
    if method in family.quantized:
        return []
    return [f"quantization_config: quantised checkpoints ({method}) are not supported"]


def _listed(values: Mapping[str, Any], problems: list[str]) -> str:
    return listed(f"config.json ({values.get('model_type')})", problems)
