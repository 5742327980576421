"""Llama-like families: RMSNorm, gated MLP, rotary positions. `family` has the tables' columns."""

from collections.abc import Mapping

from efficientids_flax.backbone.presets.families.family import Family, Values
from efficientids_flax.backbone.presets.families.layers import (
    after_first_layers,
    all_but_each_fourth,
    by_pattern,
    every_layer,
    full_layers,
    given_or_every,
    without_positions,
)
from efficientids_flax.backbone.presets.families.parts import BIASES, DEFAULTS, FIELDS, GATED
from efficientids_flax.config import BackboneConfig

PATTERN, SHARE = "sliding_window_pattern", "partial_rotary_factor"


def _glm(values: Values, problems: list[str]) -> Values:
    """Refuse a share of null: the class does not use its default then, but rotates all or fails."""
    settings = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if values.get(SHARE, 0) is None and settings.get(SHARE) is None:
        problems.append(f"{SHARE}: expected a number, found null")
    return {}


def _exaone(values: Values, problems: list[str]) -> Values:
    """If some layers have windows, layers with full attention are not rotated (EXAONE 4)."""
    types, window = values["layer_types"], values["sliding_window"]
    if types is None and window is not None and not isinstance(values.get(PATTERN, 4), int):
        problems.append(
            f"{PATTERN}: without layer_types expected a number, found {values[PATTERN]!r}"
        )
    return {"no_rotary_layers": full_layers(values, by_pattern(values)) if window else ()}


def _exaone_back(config: BackboneConfig) -> Values:
    if config.sliding_window is not None:
        return {}
    return {"sliding_window": 4096 if config.no_rotary_layers else None}


# fmt: off
_QWEN = DEFAULTS | {
    "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32,
    "max_position_embeddings": 32_768, "use_sliding_window": False, "sliding_window": 4096,
    "max_window_layers": 28, "layer_types": None,
}
_GLM = DEFAULTS | {
    "vocab_size": 151_552, "intermediate_size": 13_696, "num_hidden_layers": 40,
    "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 131_072,
    "rms_norm_eps": 0.00000015625, "attention_bias": True,
}
_WIDTH = ("head_dim",)  # read if present, though not a field of the class

FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        DEFAULTS | {"attention_bias": False, "mlp_bias": False},
        FIELDS | BIASES | {"mlp_bias": "mlp_bias"}, GATED,
    ),
    "mistral": Family(
        DEFAULTS | {"intermediate_size": 14_336, "num_key_value_heads": 8,
                    "max_position_embeddings": 131_072, "sliding_window": 4096},
        FIELDS, GATED, layer_types=every_layer,
    ),
    "qwen2": Family(
        _QWEN, FIELDS, GATED | {"qkv_bias": True}, extra=_WIDTH, layer_types=after_first_layers,
    ),
    "qwen3": Family(
        _QWEN | {"head_dim": 128, "attention_bias": False},
        FIELDS | BIASES, GATED | {"qk_norm": "per_head"}, layer_types=after_first_layers,
    ),
    "phi3": Family(
        DEFAULTS | {"vocab_size": 32_064, "hidden_size": 3072, "intermediate_size": 8192,
                    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "resid_pdrop": 0.0,
                    "original_max_position_embeddings": 4096, "sliding_window": None},
        FIELDS | {"residual_dropout": "resid_pdrop"}, GATED,
        ignored=("embd_pdrop",), extra=_WIDTH,
        layer_types=every_layer, fraction_key="partial_rotary_factor", rotary_kinds=("longrope",),
        rotary_aliases={"su": "longrope", "yarn": "longrope"},  # names in older files
    ),
    "olmo2": Family(
        DEFAULTS | {"vocab_size": 50_304, "rms_norm_eps": 1e-5, "attention_bias": False},
        FIELDS | BIASES,
        GATED | {"qk_norm": "full", "norm_policy": "post", "norm_scale_in_float32": True},
        extra=_WIDTH, in_float32=True,
    ),
    "olmo3": Family(  # sliding layers rotate by the default base, whatever `rope_theta` is
        DEFAULTS | {"vocab_size": 50_304, "rms_norm_eps": 1e-5, "attention_bias": False,
                    "sliding_window": 4096, "layer_types": None},
        FIELDS | BIASES,
        GATED | {"qk_norm": "full", "norm_policy": "post", "norm_scale_in_float32": True},
        extra=_WIDTH, layer_types=all_but_each_fourth, in_float32=True,
        rotary="by_layer_type", theta=500_000.0, local_theta=500_000.0,
    ),
    "exaone4": Family(
        DEFAULTS | {"vocab_size": 102_400, "intermediate_size": 16_384, "num_key_value_heads": 32,
                    "rms_norm_eps": 1e-5, "sliding_window": 4096, "layer_types": None},
        FIELDS, GATED | {"qk_norm": "per_head", "norm_policy": "post"},
        ignored=(PATTERN,),  # `layer_types` overrides it
        extra=_WIDTH, layer_types=by_pattern, derive=_exaone, express=_exaone_back,
    ),
    "glm": Family(
        _GLM, FIELDS | {"qkv_bias": "attention_bias"}, GATED,
        pairing="interleaved", fraction_key=SHARE, fraction=0.5, derive=_glm,
    ),
    "glm4": Family(
        _GLM, FIELDS | {"qkv_bias": "attention_bias"}, GATED | {"norm_policy": "primer_hybrid"},
        pairing="interleaved", fraction_key=SHARE, fraction=0.5, derive=_glm,
    ),
    "seed_oss": Family(
        DEFAULTS | {"vocab_size": 155_136, "intermediate_size": 27_648, "num_hidden_layers": 64,
                    "num_attention_heads": 80, "num_key_value_heads": 8, "head_dim": 128,
                    "max_position_embeddings": 524_288, "attention_bias": True,
                    "attention_out_bias": False, "mlp_bias": False, "attention_dropout": 0.1,
                    "residual_dropout": 0.1},
        FIELDS | {"qkv_bias": "attention_bias", "attention_out_bias": "attention_out_bias",
                  "mlp_bias": "mlp_bias", "residual_dropout": "residual_dropout"}, GATED,
    ),
    "arcee": Family(
        DEFAULTS | {"hidden_size": 2560, "intermediate_size": 18_432, "hidden_act": "relu2",
                    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
                    "attention_bias": False, "mlp_bias": False},
        FIELDS | BIASES | {"mlp_bias": "mlp_bias"},
    ),
    "ministral": Family(
        DEFAULTS | {"intermediate_size": 14_336, "num_key_value_heads": 8,
                    "max_position_embeddings": 131_072, "sliding_window": 4096,
                    "layer_types": None},
        FIELDS, GATED, layer_types=given_or_every,
    ),
    "ministral3": Family(
        DEFAULTS | {"vocab_size": 131_072, "intermediate_size": 14_336, "num_hidden_layers": 34,
                    "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5,
                    "max_position_embeddings": 262_144, "sliding_window": None},
        FIELDS, GATED, layer_types=every_layer, position_scaling_key="llama_4_scaling_beta",
        rotary_default={
            "type": "yarn", "rope_theta": 1_000_000.0, "factor": 16.0,
            "original_max_position_embeddings": 16_384, "beta_fast": 32.0, "beta_slow": 1.0,
            "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
        },
    ),
    "smollm3": Family(
        DEFAULTS | {"vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 36,
                    "num_attention_heads": 16, "num_key_value_heads": 4,
                    "max_position_embeddings": 32_768, "tie_word_embeddings": True,
                    "attention_bias": False, "mlp_bias": False, "use_sliding_window": False,
                    "sliding_window": None, "layer_types": None, "no_rope_layers": None,
                    "no_rope_layer_interval": 4},
        FIELDS | BIASES | {"mlp_bias": "mlp_bias"}, GATED,
        extra=_WIDTH, layer_types=without_positions, theta=2_000_000.0,
    ),
    "granite": Family(  # scales injected embeddings too
        DEFAULTS | {"attention_bias": False, "mlp_bias": False, "embedding_multiplier": 1.0,
                    "logits_scaling": 1.0, "residual_multiplier": 1.0,
                    "attention_multiplier": 1.0},
        FIELDS | BIASES | {
            "mlp_bias": "mlp_bias", "embedding_scale": "embedding_multiplier",
            "logits_divisor": "logits_scaling", "query_scaling": "attention_multiplier",
            "attention_residual_weight": "residual_multiplier",
            "mlp_residual_weight": "residual_multiplier",
        },
        GATED | {"scale_injected_embeddings": True}, extra=_WIDTH,
    ),
}
# fmt: on
