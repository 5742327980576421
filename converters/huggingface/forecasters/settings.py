"""Translates between `config.json` of `TimesFmModelForPrediction` and our configuration."""

from collections.abc import Collection, Mapping
from typing import Any

from converters.errors import MappingError
from efficientids_flax.config import TimesFMConfig
from efficientids_flax.config.forecaster import DECILES

MODEL_TYPE = "timesfm"
# fmt: off
KEYS = {
    # theirs                   ours                        default in transformers
    "num_hidden_layers":        ("num_layers",               50),
    "hidden_size":              ("model_dims",               1280),
    "intermediate_size":        ("hidden_dims",              1280),
    "num_attention_heads":      ("num_heads",                16),
    "head_dim":                 ("head_dim",                 80),
    "patch_length":             ("patch_length",             32),
    "context_length":           ("context_length",           512),
    "horizon_length":           ("horizon_length",           128),
    "freq_size":                ("num_frequencies",          3),
    "quantiles":                ("quantiles",                DECILES),
    "use_positional_embedding": ("use_positional_embedding", False),
    "tolerance":                ("tolerance",                1e-6),
    "rms_norm_eps":             ("norm_epsilon",             1e-6),
    "pad_val":                  ("pad_value",                1123581321.0),
    "min_timescale":            ("position_min_timescale",   1),
    "max_timescale":            ("position_max_timescale",   10_000),
}
# fmt: on
PORTED_TOLERANCE, NORM_EPSILON = 1e-6, 1e-6
# Keys of every `config.json` that do not affect what is computed.
ABOUT = (
    "architectures", "model_type", "transformers_version", "dtype", "torch_dtype", "id2label",
    "label2id", "_name_or_path", "output_hidden_states", "output_attentions", "return_dict",
    "chunk_size_feed_forward", "is_encoder_decoder", "problem_type", "initializer_range",
    "attention_dropout", "_attn_implementation", "use_cache", "tie_word_embeddings",
)  # fmt: skip


def read_settings(
    values: Mapping[str, Any], ignore_keys: Collection[str], notes: list[str]
) -> TimesFMConfig:
    """Make our configuration from a `config.json`, with transformers' rule for statistics.

    Args:
        values: content of the file.
        ignore_keys: keys to treat as missing.
        notes: receives which keys are ignored.

    Raises:
        MappingError: values that are invalid, or that our model does not compute.
    """
    given = {key: value for key, value in values.items() if key not in ignore_keys}
    others = [key for key in given if key not in KEYS and key not in ABOUT]
    if others:
        notes.append(f"config.json: passed over, since no model reads it: {', '.join(others)}")
    if given.get("attention_dropout"):
        notes.append("config.json: attention_dropout is for training alone, not taken along")
    found = {ours: given.get(theirs, default) for theirs, (ours, default) in KEYS.items()}
    for key in ("position_min_timescale", "position_max_timescale", "pad_value"):
        if isinstance(found[key], int) and not isinstance(found[key], bool):
            found[key] = float(found[key])
    if found["norm_epsilon"] != NORM_EPSILON:
        raise MappingError(
            f"config.json: rms_norm_eps: found {found['norm_epsilon']!r}; its LayerNorm has"
            f" {NORM_EPSILON} always, and our norms have one epsilon"
        )
    dtype = given.get("dtype") or given.get("torch_dtype") or "float32"
    try:
        return TimesFMConfig.from_dict({**found, "statistics": "centred", "dtype": dtype})
    except ValueError as error:
        raise MappingError(f"config.json: {error}") from error


def write_settings(
    config: TimesFMConfig, known: Mapping[str, Any], given: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    """Make the `config.json` for our configuration.

    Args:
        config: configuration of the model.
        known: the `config.json` that it came from; empty if there is none.
        given: the user's values, which take precedence.
        notes: receives what transformers computes differently.

    Raises:
        MappingError: transformers cannot express the model.
    """
    problems = []
    if not config.num_frequencies:
        problems.append("num_frequencies: transformers always adds one of a table of frequencies")
    if config.lora is not None:
        problems.append("lora: convert again without --keep-lora, which puts it into the weights")
    if config.norm_epsilon != NORM_EPSILON:
        problems.append(f"norm_epsilon: found {config.norm_epsilon}, its LayerNorm has 1e-6 always")
    if config.use_positional_embedding and config.model_dims % 2:
        problems.append(f"model_dims: {config.model_dims} is odd, and positions come in pairs")
    if problems:
        raise MappingError("\n  ".join(["transformers cannot express the model:", *problems]))
    document = config.to_dict()
    found = {theirs: _plain(document[ours]) for theirs, (ours, _) in KEYS.items()}
    if config.statistics != "centred":
        found["tolerance"] = PORTED_TOLERANCE
        notes.append(
            "transformers normalises by the centred deviation, at least 1e-6, where the original"
            " takes E[x^2] - mean^2 and 1 where that is tiny: series whose first patch is constant,"
            " or far from zero, are forecast otherwise"
        )
    about = {key: value for key, value in known.items() if key in ABOUT and value is not None}
    whole = {
        **{"attention_dropout": 0.0, "initializer_range": 0.02},
        **about,
        "architectures": ["TimesFmModelForPrediction"],
        "model_type": MODEL_TYPE,
        **found,
        "dtype": config.param_dtype,
        **given,
    }
    whole.pop("torch_dtype", None)
    return dict(sorted(whole.items()))


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() and value < 1e9 else value
