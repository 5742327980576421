"""Mixtures of experts that drop no token: Mixtral, Qwen's, OLMoE, Granite's."""

from collections.abc import Mapping

from efficientids_flax.backbone.presets.families.family import Family
from efficientids_flax.backbone.presets.families.layers import (
    every_layer,
    every_layer_if_used,
    every_other_of_first,
)
from efficientids_flax.backbone.presets.families.parts import (
    BIASES,
    DEFAULTS,
    FIELDS,
    GATED,
    LOSSES,
    alike,
    every_nth,
)

# fmt: off
_WIDTH = ("head_dim",)  # read if present, though not a field of the class
_SIZES = {"num_experts": "num_experts", "experts_per_token": "num_experts_per_tok"}
_LOCAL = {**_SIZES, "num_experts": "num_local_experts", "hidden_dims": "intermediate_size"}
_QWEN = {**_SIZES, "hidden_dims": "moe_intermediate_size", "renormalize": "norm_topk_prob"}
_QWEN_DEFAULTS = DEFAULTS | {
    "vocab_size": 151_936, "hidden_size": 2048, "num_hidden_layers": 24,
    "max_position_embeddings": 32_768, "use_sliding_window": False, "sliding_window": 4096,
    "decoder_sparse_step": 1, "norm_topk_prob": False, "mlp_only_layers": None,
}

FAMILIES: Mapping[str, Family] = {
    "mixtral": Family(
        DEFAULTS | {"intermediate_size": 14_336, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
                    "max_position_embeddings": 131_072, "sliding_window": None,
                    "num_experts_per_tok": 2, "num_local_experts": 8},
        FIELDS, GATED, ignored=(*LOSSES, "router_jitter_noise"),
        generic={"num_experts": "num_local_experts"}, theta=1_000_000.0, layer_types=every_layer,
        **alike(_LOCAL, renormalize=True),
    ),
    "qwen2_moe": Family(
        _QWEN_DEFAULTS | {
            "intermediate_size": 5632, "num_attention_heads": 16, "num_key_value_heads": 16,
            "max_window_layers": 28, "moe_intermediate_size": 1408, "num_experts": 60,
            "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "qkv_bias": True,
            "layer_types": None},
        FIELDS | {"qkv_bias": "qkv_bias"}, GATED, ignored=LOSSES, extra=_WIDTH,
        layer_types=every_other_of_first,
        **every_nth(_QWEN | {"shared_dims": "shared_expert_intermediate_size"}, "num_experts",
                    shared_gate=True),
    ),
    "qwen3_moe": Family(  # the class also reads the generic name of the number of experts
        _QWEN_DEFAULTS | {
            "intermediate_size": 6144, "num_key_value_heads": 4, "attention_bias": False,
            "moe_intermediate_size": 768, "num_local_experts": 128, "num_experts_per_tok": 8},
        FIELDS | BIASES, GATED | {"qk_norm": "per_head"},
        ignored=LOSSES, extra=("head_dim", "num_local_experts"),
        generic={"num_experts": "num_local_experts"}, layer_types=every_layer_if_used,
        **every_nth(_QWEN | {"num_experts": "num_local_experts"}, "num_local_experts"),
    ),
    "olmoe": Family(
        DEFAULTS | {"vocab_size": 50_304, "hidden_size": 2048, "intermediate_size": 2048,
                    "num_hidden_layers": 16, "num_attention_heads": 16, "rms_norm_eps": 1e-5,
                    "max_position_embeddings": 4096, "attention_bias": False, "clip_qkv": None,
                    "num_experts_per_tok": 8, "num_experts": 64, "norm_topk_prob": False},
        FIELDS | BIASES | {"qkv_clip": "clip_qkv"},
        GATED | {"qk_norm": "full", "qkv_clip_after_norm": True},
        only={"sliding_window": (None,)},  # passed to some kernels, but never masked
        ignored=LOSSES, extra=(*_WIDTH, "sliding_window"),
        generic={"num_local_experts": "num_experts"},
        **alike({**_SIZES, "hidden_dims": "intermediate_size", "renormalize": "norm_topk_prob"}),
    ),
    "granitemoe": Family(  # scales injected embeddings too
        DEFAULTS | {"attention_bias": False, "embedding_multiplier": 1.0, "logits_scaling": 1.0,
                    "residual_multiplier": 1.0, "attention_multiplier": 1.0,
                    "num_local_experts": 8, "num_experts_per_tok": 2},
        FIELDS | BIASES | {
            "embedding_scale": "embedding_multiplier", "logits_divisor": "logits_scaling",
            "query_scaling": "attention_multiplier",
            "attention_residual_weight": "residual_multiplier",
            "mlp_residual_weight": "residual_multiplier",
        },
        GATED | {"scale_injected_embeddings": True}, ignored=LOSSES, extra=_WIDTH,
        **alike(_LOCAL, scores="chosen_softmax"),
    ),
}
# fmt: on
