"""The HuggingFace families as data: which key of a `config.json` says what, what a family fixes.

Defaults are those of the configuration classes of transformers 5.23
(`models/*/configuration_*.py`): a missing key means them. The computation is that of
`models/*/modeling_*.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from efficientids_flax.config.parts import KernelAxes

Values = Mapping[str, Any]
LayerTypes = (
    list[str] | None
)  # 'full_attention' or 'sliding_attention', one per layer; None: no windows


@dataclass(frozen=True)
class Family:
    """The models of one `model_type`.

    Attributes:
        defaults: key -> value where it is missing; with `only`, the keys that are read.
        fields: field of `BackboneConfig` -> key that holds it.
        fixed: field of `BackboneConfig` -> its value in all models of the family.
        only: key -> the values that this decoder computes; others are refused by name.
        layer_types: which layers have a sliding window.
        rotary: where its settings lie: 'flat', 'by_layer_type' (Gemma3) or 'none'.
        theta, local_theta: default base of the rotary positions, and that of sliding layers.
        fraction_key: older key of the share of the head width that turns, which now lies among the
            rotary settings; None where all of it turns.
        fraction: default of that share.
        rotary_kinds: scaling methods that the family's class accepts; empty for all.
        in_float32: cos and sin stay float32 (`RotaryConfig.in_float32`).
        kernel_axes: how its files store kernels, which are loaded as they are.
    """

    defaults: Values
    fields: Mapping[str, str]
    fixed: Values = field(default_factory=dict)
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    layer_types: Callable[[Values], LayerTypes] = lambda _: None
    rotary: Literal["flat", "by_layer_type", "none"] = "flat"
    theta: float = 10_000.0
    local_theta: float = 10_000.0
    fraction_key: str | None = None
    fraction: float = 1.0
    rotary_kinds: tuple[str, ...] = ()
    in_float32: bool = False
    kernel_axes: KernelAxes = "out_in"


def every_layer(values: Values) -> LayerTypes:
    """All layers slide, if there is a window (Mistral, Phi-3)."""
    return None if values["sliding_window"] is None else _all(values, lambda _: True)


def after_first_layers(values: Values) -> LayerTypes:
    """`layer_types`, else those from `max_window_layers` on, if windows are in use (Qwen)."""
    if not values["use_sliding_window"] or values["sliding_window"] is None:
        return values["layer_types"]
    first = values["max_window_layers"]
    return values["layer_types"] or _all(values, lambda layer: layer >= first)


def all_but_each_nth(values: Values) -> LayerTypes:
    """`layer_types`, else every `sliding_window_pattern`-th layer sees all (Gemma2, Gemma3)."""
    period = values["sliding_window_pattern"]
    return values["layer_types"] or _all(values, lambda layer: (layer + 1) % period != 0)


def without_positions(values: Values) -> LayerTypes:
    """`layer_types`, else the layers that are not turned slide, if windows are in use (SmolLM3)."""
    if not values["use_sliding_window"] or values["sliding_window"] is None:
        return values["layer_types"]
    skipped = no_rotary_layers(values)
    return values["layer_types"] or _all(values, lambda layer: layer in skipped)


def no_rotary_layers(values: Values) -> tuple[int, ...]:
    """Layers whose queries and keys are not turned: 0 in `no_rope_layers` (SmolLM3)."""
    count, turned = values["num_hidden_layers"], values["no_rope_layers"]
    if turned is None:
        interval = values["no_rope_layer_interval"]
        turned = [(layer + 1) % interval for layer in range(count)]
    return tuple(layer for layer in range(min(count, len(turned))) if not turned[layer])


def _all(values: Values, slides: Callable[[int], bool]) -> list[str]:
    layers = range(values["num_hidden_layers"])
    return ["sliding_attention" if slides(layer) else "full_attention" for layer in layers]


# fmt: off
_FIELDS = {
    "vocab_size":         "vocab_size",
    "num_layers":         "num_hidden_layers",
    "model_dims":         "hidden_size",
    "hidden_dims":        "intermediate_size",
    "num_heads":          "num_attention_heads",
    "num_kv_heads":       "num_key_value_heads",
    "head_dim":           "head_dim",
    "norm_epsilon":       "rms_norm_eps",
    "activation":         "hidden_act",
    "tied_embeddings":    "tie_word_embeddings",
    "attention_dropout":  "attention_dropout",
}
_BIASES = {"qkv_bias": "attention_bias", "attention_out_bias": "attention_bias"}
_DEFAULTS = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "attention_dropout": 0.0,
}
_QWEN = _DEFAULTS | {
    "vocab_size": 151_936, "intermediate_size": 22_016, "num_key_value_heads": 32,
    "max_position_embeddings": 32_768, "use_sliding_window": False, "sliding_window": 4096,
    "max_window_layers": 28, "layer_types": None,
}
_GEMMA = _DEFAULTS | {
    "vocab_size": 256_000, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "tie_word_embeddings": True, "attention_bias": False,
}
_GEMMA2 = {key: value for key, value in _GEMMA.items() if key != "hidden_act"} | {
    "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256, "sliding_window": 4096, "layer_types": None,
    "sliding_window_pattern": 2, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
}
_GATED = {"gated_mlp": True}
# Gemma multiplies by (1 + scale) in float32; the factor of word embeddings is part of their table.
_GEMMA_FIXED = _GATED | {
    "norm_scale_plus_one": True, "norm_scale_in_float32": True, "embedding_scale": "sqrt_dim",
}
_GEMMA_FIELDS = _FIELDS | _BIASES
_GEMMA2_FIELDS = _GEMMA_FIELDS | {
    "activation": "hidden_activation", "final_logit_cap": "final_logit_softcapping",
    "query_scaling": "query_pre_attn_scalar",
}
_CAUSAL = {"use_bidirectional_attention": (None, False)}
_LAYER_NORM = {"norm": "layer_norm", "norm_bias": True, "mlp_bias": True, "fused_qkv": True}

FAMILIES: Mapping[str, Family] = {
    "llama": Family(
        _DEFAULTS | {"attention_bias": False, "mlp_bias": False},
        _FIELDS | _BIASES | {"mlp_bias": "mlp_bias"}, _GATED,
    ),
    "mistral": Family(
        _DEFAULTS | {"intermediate_size": 14_336, "num_key_value_heads": 8,
                     "max_position_embeddings": 131_072, "sliding_window": 4096},
        _FIELDS, _GATED, layer_types=every_layer,
    ),
    "qwen2": Family(
        _QWEN, _FIELDS, _GATED | {"qkv_bias": True}, layer_types=after_first_layers,
    ),
    "qwen3": Family(
        _QWEN | {"head_dim": 128, "attention_bias": False},
        _FIELDS | _BIASES, _GATED | {"qk_norm": "per_head"}, layer_types=after_first_layers,
    ),
    "gemma": Family(
        _GEMMA | {"hidden_size": 3072, "intermediate_size": 24_576, "num_hidden_layers": 28,
                  "num_attention_heads": 16, "num_key_value_heads": 16},
        _GEMMA_FIELDS, _GEMMA_FIXED,
        only=_CAUSAL | {"hidden_activation": (None, "gelu_pytorch_tanh")},
    ),
    "gemma2": Family(
        _GEMMA2,
        _GEMMA2_FIELDS | {"attention_logit_cap": "attn_logit_softcapping"},
        _GEMMA_FIXED | {"norm_policy": "primer_hybrid"},
        only=_CAUSAL, layer_types=all_but_each_nth,
    ),
    "gemma3_text": Family(  # its class ignores `attn_logit_softcapping`
        _GEMMA2 | {"vocab_size": 262_208, "max_position_embeddings": 131_072,
                   "sliding_window_pattern": 6, "final_logit_softcapping": None},
        _GEMMA2_FIELDS, _GEMMA_FIXED | {"norm_policy": "primer_hybrid", "qk_norm": "per_head"},
        only=_CAUSAL, layer_types=all_but_each_nth, rotary="by_layer_type", theta=1_000_000.0,
    ),
    "phi3": Family(
        _DEFAULTS | {"vocab_size": 32_064, "hidden_size": 3072, "intermediate_size": 8192,
                     "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "resid_pdrop": 0.0,
                     "original_max_position_embeddings": 4096, "sliding_window": None},
        _FIELDS | {"residual_dropout": "resid_pdrop"}, _GATED,
        layer_types=every_layer, fraction_key="partial_rotary_factor", rotary_kinds=("longrope",),
    ),
    "olmo2": Family(
        _DEFAULTS | {"vocab_size": 50_304, "rms_norm_eps": 1e-5, "attention_bias": False},
        _FIELDS | _BIASES,
        _GATED | {"qk_norm": "full", "norm_policy": "post", "norm_scale_in_float32": True},
        in_float32=True,
    ),
    "smollm3": Family(
        _DEFAULTS | {"vocab_size": 128_256, "hidden_size": 2048, "num_hidden_layers": 36,
                     "num_attention_heads": 16, "num_key_value_heads": 4,
                     "max_position_embeddings": 32_768, "tie_word_embeddings": True,
                     "attention_bias": False, "mlp_bias": False, "use_sliding_window": False,
                     "sliding_window": None, "layer_types": None, "no_rope_layers": None,
                     "no_rope_layer_interval": 4},
        _FIELDS | _BIASES | {"mlp_bias": "mlp_bias"}, _GATED,
        layer_types=without_positions, theta=2_000_000.0,
    ),
    "granite": Family(  # it multiplies embeddings that are given, too
        _DEFAULTS | {"attention_bias": False, "mlp_bias": False, "embedding_multiplier": 1.0,
                     "logits_scaling": 1.0, "residual_multiplier": 1.0,
                     "attention_multiplier": 1.0},
        _FIELDS | _BIASES | {
            "mlp_bias": "mlp_bias", "embedding_scale": "embedding_multiplier",
            "logits_divisor": "logits_scaling", "query_scaling": "attention_multiplier",
            "attention_residual_weight": "residual_multiplier",
            "mlp_residual_weight": "residual_multiplier",
        },
        _GATED | {"scale_injected_embeddings": True},
    ),
    "gpt2": Family(
        {"vocab_size": 50_257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
         "n_inner": None, "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1,
         "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
         "scale_attn_weights": True},
        {"vocab_size": "vocab_size", "num_layers": "n_layer", "model_dims": "n_embd",
         "hidden_dims": "n_inner", "num_heads": "n_head", "norm_epsilon": "layer_norm_epsilon",
         "activation": "activation_function", "tied_embeddings": "tie_word_embeddings",
         "max_positions": "n_positions", "residual_dropout": "resid_pdrop",
         "input_dropout": "embd_pdrop", "attention_dropout": "attn_pdrop",
         "query_scaling": "scale_attn_weights"},
        _LAYER_NORM | {"qkv_bias": True, "attention_out_bias": True,
                       "position_embedding": "learned"},
        only={"scale_attn_by_inverse_layer_idx": (False,), "reorder_and_upcast_attn": (False,),
              "add_cross_attention": (False,)},
        rotary="none", kernel_axes="in_out",
    ),
    "gpt_neox": Family(
        {key: value for key, value in _DEFAULTS.items()
         if key not in ("num_key_value_heads", "head_dim", "rms_norm_eps")} | {
            "vocab_size": 50_432, "hidden_size": 6144, "intermediate_size": 24_576,
            "num_hidden_layers": 44, "num_attention_heads": 64, "hidden_act": "gelu",
            "hidden_dropout": 0.0, "layer_norm_eps": 1e-5, "use_parallel_residual": True,
            "attention_bias": True},
        {field: key for field, key in _FIELDS.items() if field not in ("num_kv_heads", "head_dim")}
        | _BIASES | {
            "norm_epsilon": "layer_norm_eps", "parallel_residual": "use_parallel_residual",
            "input_dropout": "hidden_dropout", "residual_dropout": "hidden_dropout"},
        _LAYER_NORM, fraction_key="rotary_pct", fraction=0.25,
    ),
}

# transformers' name (`activations.py`, ACT2FN) -> ours
ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_python": "gelu",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh", "relu": "relu", "relu2": "squared_relu",
    "relu6": "relu6", "leaky_relu": "leaky_relu", "sigmoid": "sigmoid", "tanh": "tanh",
    "linear": "identity",
}

# What says nothing about the computation of hidden states and logits from ids: where a file comes
# from, tokens, training, generation, other heads.
IRRELEVANT = frozenset({
    "_name_or_path", "name_or_path", "architectures", "auto_map", "model_type",
    "transformers_version", "_commit_hash", "transformers.js_config", "unsloth_fixed",
    "unsloth_version", "model_max_length", "tokenizer_class", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "_attn_implementation_internal",
    "_flash_attn_2_enabled", "_experts_implementation_internal", "experts_implementation",
    "use_flash_attn", "use_mrope", "torch_dtype", "dtype", "initializer_range",
    "embedding_initializer_range", "initializer_factor", "use_cache", "cache_implementation",
    "gradient_checkpointing", "pretraining_tp", "return_dict", "output_hidden_states",
    "output_attentions", "torchscript", "use_bfloat16", "pruned_heads", "chunk_size_feed_forward",
    "is_decoder", "is_encoder_decoder", "cross_attention_hidden_size", "tie_encoder_decoder",
    "tie_last_hidden_states", "n_ctx", "task_specific_params", "problem_type", "id2label",
    "label2id", "num_labels", "finetuning_task", "prefix", "classifier_dropout",
    "classifier_bias", "decoder_start_token_id", "sep_token_id", "bos_token_id", "eos_token_id",
    "pad_token_id", "unk_token_id", "boi_token_index", "eoi_token_index", "image_token_index",
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels",
    "summary_first_dropout", "summary_last_dropout", "_sliding_window_pattern",
    # generation
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "length_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "suppress_tokens",
    "begin_suppress_tokens", "num_return_sequences", "output_scores", "return_dict_in_generate",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
    "exponential_decay_length_penalty", "generation_config",
})
# fmt: on
