"""Families with parallel attention and MLP: both read the layer's input, through one norm or two.

`hidden_dropout` of StableLM and Falcon applies to the MLP or to the sum; here, to both parts.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from efficientids_flax.backbone.presets.families.family import Family, Values
from efficientids_flax.backbone.presets.families.layers import all_but_each_nth, full_layers
from efficientids_flax.backbone.presets.families.parts import (
    DEFAULTS,
    FIELDS,
    GATED,
    fraction_of,
    inverse_of,
    odd_turn_problems,
    own_width_problems,
)
from efficientids_flax.config import (
    AlibiConfig,
    BackboneConfig,
    NormConfig,
    NormPlacesConfig,
    RotaryConfig,
)

BASE = 10_000.0  # base of GPT-J's and CodeGen's rotary positions


def _phi(values: Values, problems: list[str]) -> Values:
    problems += odd_turn_problems(values, values["head_dim"], 0.5)
    return {"qk_norm": "per_head" if values["qk_layernorm"] else "none"}


def _phi_back(config: BackboneConfig) -> Values:
    return {"qk_layernorm": config.qk_norm != "none"}


def _stablelm(values: Values, problems: list[str]) -> Values:
    """Norms of single heads have no bias."""
    problems += own_width_problems(values) + odd_turn_problems(values, None, 0.25)
    found: dict[str, object] = {"shared_norm": values["use_parallel_residual"]}
    if values["qk_layernorm"]:
        norms = NormPlacesConfig(query_key=NormConfig(bias=False))
        found |= {"qk_norm": "each_head", "norms": norms}
    return found


def _cohere(values: Values, problems: list[str]) -> Values:
    scale = values["logit_scale"]
    if not scale > 0:
        problems.append(f"logit_scale: expected a number above 0, found {scale!r}")
        return {}
    found: dict[str, object] = {"logits_divisor": 1 / scale}
    if values.get("use_qk_norm"):
        found["qk_norm"] = "each_head"
    return found


def _cohere_back(config: BackboneConfig) -> Values:
    return {
        "logit_scale": inverse_of(config.logits_divisor),
        "use_qk_norm": config.qk_norm != "none",
    }


def _cohere2(values: Values, problems: list[str]) -> Values:
    """Layers with full attention are not rotated."""
    still = full_layers(values, all_but_each_nth(values))
    return {**_cohere({**values, "use_qk_norm": False}, problems), "no_rotary_layers": still}


def _cohere2_back(config: BackboneConfig) -> Values:
    return {"logit_scale": inverse_of(config.logits_divisor)}


def _gptj(values: Values, problems: list[str]) -> Values:
    """The first `rotary_dim` numbers of a head are rotated."""
    width, turned = values["n_embd"] // values["n_head"], values["rotary_dim"]
    if not 0 < turned <= width or turned % 2:
        problems.append(
            f"rotary_dim: expected an even number up to the width {width} of a head, found {turned}"
        )
        return {}
    return {
        "rotary": RotaryConfig(
            pairing="interleaved",
            max_timescale=BASE,
            fraction=fraction_of(turned, width),
            in_float32=False,
            by_frequency=True,
        )
    }


def _codegen(values: Values, problems: list[str]) -> Values:
    if values["n_head"] % 4:
        problems.append(f"n_head: expected a multiple of 4, found {values['n_head']}")
    return _gptj(values, problems)


def _gptj_back(config: BackboneConfig) -> Values:
    fraction = config.rotary.fraction if config.rotary else 0
    return {"rotary_dim": int(config.head_dim * fraction)}


def _falcon(values: Values, problems: list[str]) -> Values:
    """Three forms: old with one key head or one per head, new with any number; one norm or two."""
    problems += own_width_problems(values)
    heads, count = values["num_attention_heads"], values["num_kv_heads"]
    new, parallel = values["new_decoder_architecture"], values["parallel_attn"]
    width = values["hidden_size"] if values["n_embed"] is None else values["n_embed"]
    norms = values["num_ln_in_parallel_attn"]
    norms = (2 if new else 1) if norms is None else norms
    if new and not parallel:
        problems.append("parallel_attn: expected true with new_decoder_architecture, found false")
    if norms not in ((1, 2) if new else (1,)) and parallel:
        form = "new" if new else "old"
        problems.append(
            f"num_ln_in_parallel_attn: found {norms}, which the {form} architecture lacks"
        )
    if not new and not values["multi_query"] and count not in (None, heads):
        problems.append(f"num_kv_heads: expected num_attention_heads = {heads}, found {count}")
    if width % heads:
        key = "hidden_size" if values["n_embed"] is None else "n_embed"
        problems.append(f"{key}: {width} is no multiple of the number of heads")
    many = heads if count is None or not new else count
    found = _falcon_alibi(width // heads) if values["alibi"] else {}
    return found | {
        "model_dims": width,
        "head_dim": width // heads,
        "hidden_dims": values["ffn_hidden_size"] or 4 * width,
        "num_kv_heads": 1 if values["multi_query"] and not new else many,
        "parallel_residual": parallel,
        "shared_norm": parallel and norms == 1,
    }


def _falcon_alibi(width: int) -> dict[str, Any]:
    """ALiBi instead of rotation, in bfloat16, scaled like the logits.

    The same as with PyTorch's kernel, the class's default, and as the models were trained. With
    `attn_implementation='eager'`, transformers 5.23 adds the biases twice.
    """
    alibi = AlibiConfig(scale=width**-0.5, in_bfloat16=True)
    return {"alibi": alibi, "rotary": None, "positions_pass_padding": True}


def _falcon_back(config: BackboneConfig) -> Values:
    parallel, kv = config.parallel_residual, config.num_kv_heads
    two = parallel and not config.shared_norm
    new = two or (parallel and kv not in (1, config.num_heads))
    return {
        "alibi": config.alibi is not None,
        "num_kv_heads": kv if new else config.num_heads,
        "new_decoder_architecture": new,
        "multi_query": kv == 1,
        "parallel_attn": parallel,
        "num_ln_in_parallel_attn": (2 if two else 1) if new else None,
    }


# fmt: off
_FIELDS = {field: key for field, key in FIELDS.items() if field != "norm_epsilon"}
_DEFAULTS = {key: value for key, value in DEFAULTS.items() if key != "rms_norm_eps"}
_NORM = {"norm": "layer_norm", "norm_bias": True}
_SIDE_BY_SIDE = {"parallel_residual": True, "shared_norm": True}
_COHERE = _DEFAULTS | {
    "vocab_size": 256_000, "hidden_size": 8192, "intermediate_size": 22_528,
    "num_hidden_layers": 40, "num_attention_heads": 64, "max_position_embeddings": 8192,
    "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": True,
    "attention_bias": False,
}
_COHERE_FIELDS = _FIELDS | {
    "norm_epsilon": "layer_norm_eps", "qkv_bias": "attention_bias",
    "attention_out_bias": "attention_bias",
}
_GPTJ = Family(
    {"vocab_size": 50_400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16,
     "rotary_dim": 64, "n_inner": None, "activation_function": "gelu_new", "resid_pdrop": 0.0,
     "embd_pdrop": 0.0, "attn_pdrop": 0.0, "layer_norm_epsilon": 1e-5,
     "tie_word_embeddings": False},
    {"vocab_size": "vocab_size", "num_layers": "n_layer", "model_dims": "n_embd",
     "hidden_dims": "n_inner", "num_heads": "n_head", "norm_epsilon": "layer_norm_epsilon",
     "activation": "activation_function", "tied_embeddings": "tie_word_embeddings",
     "residual_dropout": "resid_pdrop", "input_dropout": "embd_pdrop",
     "attention_dropout": "attn_pdrop"},
    _NORM | _SIDE_BY_SIDE | {"mlp_bias": True, "lm_head_bias": True},
    generic={"max_position_embeddings": "n_positions", "hidden_size": "n_embd",
             "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    derive=_gptj, express=_gptj_back, rotary="none", pairing="interleaved",
)

FAMILIES: Mapping[str, Family] = {
    "phi": Family(
        _DEFAULTS | {"vocab_size": 51_200, "hidden_size": 2048, "intermediate_size": 8192,
                     "num_hidden_layers": 24, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
                     "hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "qk_layernorm": False},
        _FIELDS | {"norm_epsilon": "layer_norm_eps", "residual_dropout": "resid_pdrop",
                   "input_dropout": "embd_pdrop"},
        _NORM | _SIDE_BY_SIDE | {"qkv_bias": True, "attention_out_bias": True, "mlp_bias": True,
                                 "lm_head_bias": True},
        extra=("head_dim",), derive=_phi, express=_phi_back,
        fraction_key="partial_rotary_factor", fraction=0.5,
    ),
    "stablelm": Family(
        _DEFAULTS | {"vocab_size": 50_304, "hidden_size": 2560, "intermediate_size": 6912,
                     "num_key_value_heads": 32, "max_position_embeddings": 4096,
                     "layer_norm_eps": 1e-5, "use_qkv_bias": False, "qk_layernorm": False,
                     "use_parallel_residual": False, "hidden_dropout": 0.0},
        {field: key for field, key in _FIELDS.items() if field != "head_dim"} | {
            "norm_epsilon": "layer_norm_eps", "qkv_bias": "use_qkv_bias",
            "parallel_residual": "use_parallel_residual", "residual_dropout": "hidden_dropout"},
        _NORM | GATED, extra=("head_dim",), derive=_stablelm, express=_phi_back,
        fraction_key="partial_rotary_factor", fraction=0.25,
    ),
    "cohere": Family(
        _COHERE | {"use_qk_norm": False}, _COHERE_FIELDS,
        GATED | _SIDE_BY_SIDE | {"norm": "layer_norm"},
        extra=("head_dim",), derive=_cohere, express=_cohere_back,
        pairing="interleaved", theta=500_000.0,
    ),
    "cohere2": Family(
        _COHERE | {"sliding_window": 4096, "layer_types": None, "sliding_window_pattern": 4},
        _COHERE_FIELDS, GATED | _SIDE_BY_SIDE | {"norm": "layer_norm"},
        extra=("head_dim", "sliding_window_pattern"), derive=_cohere2, express=_cohere2_back,
        layer_types=all_but_each_nth, pairing="interleaved",
    ),
    "gptj": _GPTJ,
    "codegen": replace(_GPTJ, derive=_codegen),
    "falcon": Family(
        {"vocab_size": 65_024, "hidden_size": 4544, "n_embed": None, "num_hidden_layers": 32,
         "num_attention_heads": 71, "num_ln_in_parallel_attn": None, "layer_norm_epsilon": 1e-5,
         "hidden_dropout": 0.0, "attention_dropout": 0.0, "num_kv_heads": None,
         "new_decoder_architecture": False, "multi_query": True, "parallel_attn": True,
         "bias": False, "max_position_embeddings": 2048, "ffn_hidden_size": None,
         "activation": "gelu", "tie_word_embeddings": True, "head_dim": None, "alibi": False},
        {"vocab_size": "vocab_size", "num_layers": "num_hidden_layers",
         "model_dims": "hidden_size", "hidden_dims": "ffn_hidden_size",
         "num_heads": "num_attention_heads", "norm_epsilon": "layer_norm_epsilon",
         "activation": "activation", "tied_embeddings": "tie_word_embeddings",
         "qkv_bias": "bias", "attention_out_bias": "bias", "mlp_bias": "bias",
         "residual_dropout": "hidden_dropout", "attention_dropout": "attention_dropout"},
        _NORM, extra=("n_embed", "head_dim"),
        derive=_falcon, express=_falcon_back,
    ),
}
# fmt: on
