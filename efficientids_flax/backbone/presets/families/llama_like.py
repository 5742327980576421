"""Llama and its kin: RMSNorm, gated MLP, rotary positions. See the tables' columns in `family`."""

from collections.abc import Mapping

from efficientids_flax.backbone.presets.families.family import Family
from efficientids_flax.backbone.presets.families.layers import (
    after_first_layers,
    every_layer,
    without_positions,
)
from efficientids_flax.backbone.presets.families.parts import BIASES, DEFAULTS, FIELDS, GATED

# fmt: off
_QWEN = DEFAULTS | {
    "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32,
    "max_position_embeddings": 32_768, "use_sliding_window": False, "sliding_window": 4096,
    "max_window_layers": 28, "layer_types": None,
}
_WIDTH = ("head_dim",)  # read where it is there, though no field of the class

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
    ),
    "olmo2": Family(
        DEFAULTS | {"vocab_size": 50_304, "rms_norm_eps": 1e-5, "attention_bias": False},
        FIELDS | BIASES,
        GATED | {"qk_norm": "full", "norm_policy": "post", "norm_scale_in_float32": True},
        extra=_WIDTH, in_float32=True,
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
    "granite": Family(  # it multiplies embeddings that are given, too
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
