"""GPT-2, GPT-BigCode and GPT-NeoX: LayerNorm with biases; one tensor for queries, keys, values."""

from collections.abc import Mapping

from efficientids_flax.backbone.presets.families.family import Family, Values
from efficientids_flax.backbone.presets.families.parts import (
    BIASES,
    DEFAULTS,
    FIELDS,
    LAYER_NORM,
    own_width_problems,
)
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.parts import LayerSetting


def _by_layer(values: Values, problems: list[str]) -> Values:
    """GPT-2's option to divide the scores of layer i by i + 1, as `layer_settings`."""
    del problems
    if not values["scale_attn_by_inverse_layer_idx"]:
        return {}
    width = values["n_embd"] // values["n_head"]
    scale = width**-0.5 if values["scale_attn_weights"] else 1.0
    settings = [
        LayerSetting((layer,), "query_scaling", scale / (layer + 1))
        for layer in range(1, values["n_layer"])
    ]
    return {"layer_settings": tuple(settings)}


def _as_by_layer(config: BackboneConfig) -> Values:
    return {"scale_attn_by_inverse_layer_idx": bool(config.layer_settings)}


def _one_width(values: Values, problems: list[str]) -> Values:
    """Refuse a `head_dim` other than D / N: GPT-NeoX uses it for the rotated share alone."""
    problems += own_width_problems(values)
    return {}


def _bigcode(values: Values, problems: list[str]) -> Values:
    return {"num_kv_heads": 1 if values["multi_query"] else values["n_head"]}


def _bigcode_back(config: BackboneConfig) -> Values:
    return {"multi_query": config.num_kv_heads == 1}


# fmt: off
_GPT2 = {
    "vocab_size": 50_257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
    "n_inner": None, "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1,
    "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
    "scale_attn_weights": True,
}
_GPT2_FIELDS = {
    "vocab_size": "vocab_size", "num_layers": "n_layer", "model_dims": "n_embd",
    "hidden_dims": "n_inner", "num_heads": "n_head", "norm_epsilon": "layer_norm_epsilon",
    "activation": "activation_function", "tied_embeddings": "tie_word_embeddings",
    "max_positions": "n_positions", "residual_dropout": "resid_pdrop",
    "input_dropout": "embd_pdrop", "attention_dropout": "attn_pdrop",
    "query_scaling": "scale_attn_weights",
}
_GENERIC = {"hidden_size": "n_embd", "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"}

FAMILIES: Mapping[str, Family] = {
    "gpt2": Family(
        _GPT2 | {"scale_attn_by_inverse_layer_idx": False}, _GPT2_FIELDS,
        LAYER_NORM | {"qkv_bias": True, "attention_out_bias": True,
                      "position_embedding": "learned"},
        only={"add_cross_attention": (False,)},
        ignored=("reorder_and_upcast_attn",),  # scores are float32 anyway
        derive=_by_layer, express=_as_by_layer,
        generic=_GENERIC, rotary="none", kernel_axes="in_out",
    ),
    "gpt_bigcode": Family(
        _GPT2 | {"activation_function": "gelu_pytorch_tanh", "multi_query": True}, _GPT2_FIELDS,
        LAYER_NORM | {"fused_qkv": False, "qkv_bias": True, "attention_out_bias": True,
                      "position_embedding": "learned"},
        only={"add_cross_attention": (False,)},
        ignored=("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"),
        generic=_GENERIC, derive=_bigcode, express=_bigcode_back, rotary="none",
    ),
    "gpt_neox": Family(
        {key: value for key, value in DEFAULTS.items()
         if key not in ("num_key_value_heads", "rms_norm_eps")} | {
            "vocab_size": 50_432, "hidden_size": 6144, "intermediate_size": 24_576,
            "num_hidden_layers": 44, "num_attention_heads": 64, "hidden_act": "gelu",
            "hidden_dropout": 0.0, "layer_norm_eps": 1e-5, "use_parallel_residual": True,
            "attention_bias": True},
        {field: key for field, key in FIELDS.items() if field not in ("num_kv_heads", "head_dim")}
        | BIASES | {
            "norm_epsilon": "layer_norm_eps", "parallel_residual": "use_parallel_residual",
            "input_dropout": "hidden_dropout", "residual_dropout": "hidden_dropout"},
        LAYER_NORM, extra=("head_dim",), derive=_one_width,
        fraction_key="rotary_pct", fraction=0.25,
    ),
}
# fmt: on
