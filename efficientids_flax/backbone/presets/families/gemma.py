"""Gemma's families: norms multiply by (1 + scale) in float32, word embeddings by sqrt(D)."""

from collections.abc import Mapping

from efficientids_flax.backbone.presets.families.family import Family, Values
from efficientids_flax.backbone.presets.families.layers import all_but_each_nth, every_other
from efficientids_flax.backbone.presets.families.parts import BIASES, DEFAULTS, FIELDS, GATED
from efficientids_flax.config import BackboneConfig


def _both_ways(values: Values, problems: list[str]) -> Values:
    """Bidirectional Gemma3 (EmbeddingGemma): windows reach half their size to both sides."""
    if not values["use_bidirectional_attention"]:
        return {}
    window = values["sliding_window"]
    if window is None:
        problems.append("sliding_window: use_bidirectional_attention needs it, found null")
        return {}
    size = window // 2 + 1
    if "sliding_attention" not in (all_but_each_nth(values) or ()):
        return {"attention_mask": "bidirectional"}
    return {"attention_mask": "bidirectional", "sliding_window": size, "sliding_window_ahead": size}


def _as_both_ways(config: BackboneConfig) -> Values:
    if config.attention_mask != "bidirectional":
        return {"use_bidirectional_attention": False}
    window = config.sliding_window
    size = {} if window is None else {"sliding_window": 2 * (window - 1)}
    return {"use_bidirectional_attention": True, **size}


# fmt: off
_GEMMA = DEFAULTS | {
    "vocab_size": 256_000, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "tie_word_embeddings": True, "attention_bias": False,
}
_GEMMA2 = {key: value for key, value in _GEMMA.items() if key != "hidden_act"} | {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "layer_types": None,
    "final_logit_softcapping": 30.0,
}
# The factor belongs to the lookup of word embeddings: injected embeddings are not scaled.
_FIXED = GATED | {
    "norm_scale_plus_one": True, "norm_scale_in_float32": True, "embedding_scale": "sqrt_dim",
}
_FIELDS = FIELDS | BIASES
_GEMMA2_FIELDS = _FIELDS | {
    "activation": "hidden_activation", "final_logit_cap": "final_logit_softcapping",
    "query_scaling": "query_pre_attn_scalar",
}
# Of its two values, eager attention respects one, PyTorch's kernel the other.
_CAUSAL = {"use_bidirectional_attention": (None, False)}

FAMILIES: Mapping[str, Family] = {
    "gemma": Family(
        _GEMMA | {"hidden_size": 3072, "intermediate_size": 24_576, "num_hidden_layers": 28,
                  "num_attention_heads": 16, "num_key_value_heads": 16},
        _FIELDS, _FIXED, only=_CAUSAL,
    ),
    "gemma2": Family(
        _GEMMA2 | {"attn_logit_softcapping": 50.0},
        _GEMMA2_FIELDS | {"attention_logit_cap": "attn_logit_softcapping"},
        _FIXED | {"norm_policy": "primer_hybrid"},
        only=_CAUSAL, layer_types=every_other,
    ),
    "gemma3_text": Family(
        _GEMMA2 | {"vocab_size": 262_208, "max_position_embeddings": 131_072,
                   "sliding_window_pattern": 6, "final_logit_softcapping": None,
                   "use_bidirectional_attention": False},
        _GEMMA2_FIELDS, _FIXED | {"norm_policy": "primer_hybrid", "qk_norm": "per_head"},
        ignored=("attn_logit_softcapping",), extra=("sliding_window_pattern",),
        derive=_both_ways, express=_as_both_ways,
        layer_types=all_but_each_nth, rotary="by_layer_type", theta=1_000_000.0,
        local_theta_key="rope_local_base_freq",
    ),
}
# fmt: on
