"""Families with ALiBi: biases by distance instead of position embeddings or rotations."""

from collections.abc import Mapping
from typing import Any

from efficientids_flax.backbone.presets.families.family import Family, Values
from efficientids_flax.config import AlibiConfig, BackboneConfig


def _bloom(values: Values, problems: list[str]) -> Values:
    if values["slow_but_exact"] and values.get("pretraining_tp", 1) > 1:
        problems.append(
            "slow_but_exact: not supported with pretraining_tp above 1: transformers then leaves"
            " biases out"
        )
    skip = values["apply_residual_connection_post_layernorm"]
    found: dict[str, Any] = {"norm_policy": "pre_skip" if skip else "pre"}
    if (width := values["n_embed"]) is not None:  # it overrides `hidden_size`
        heads = values["n_head"]
        found |= {"model_dims": width, "hidden_dims": 4 * width, "head_dim": width // heads}
    return found


def _to_bloom(config: BackboneConfig) -> Values:
    skip = config.norm_policy == "pre_skip"
    return {"apply_residual_connection_post_layernorm": skip, "n_embed": None}


def _mpt(values: Values, problems: list[str]) -> Values:
    """Fields from `attn_config`; the class reads neither `alibi` nor `alibi_bias_max` of it."""
    given = values["attn_config"] or {}
    kind = given.get("attn_type", "multihead_attention")
    if kind != "multihead_attention":
        problems.append(
            f"attn_config.attn_type: found {kind!r}, expected 'multihead_attention', the only one"
            " that transformers computes"
        )
    found = {name: given.get(name) for name in ("softmax_scale", "clip_qkv", "attn_pdrop")}
    wrong = [
        f"attn_config.{name}: expected a number, found {value!r}"
        for name, value in found.items()
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float))
    ]
    problems += wrong
    if wrong:
        return {}
    scale, dropout = found["softmax_scale"], float(found["attn_pdrop"] or 0)
    return {
        "query_scaling": "inverse_sqrt_head_dim" if scale is None else float(scale),
        "qkv_clip": found["clip_qkv"] or None,
        "attention_dropout": dropout,
        "residual_dropout": dropout,
    }


def _to_mpt(config: BackboneConfig) -> Values:
    scale, dropout = config.query_scaling, config.attention_dropout
    return {
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": 8,
            "attn_pdrop": int(dropout) if dropout == int(dropout) else dropout,
            "clip_qkv": config.qkv_clip,
            "softmax_scale": scale if isinstance(scale, int | float) else None,
        }
    }


# fmt: off
# A `hidden_dims` of null means four times the model's width.
_FIXED = {"hidden_dims": None, "norm": "layer_norm", "fused_qkv": True, "alibi": AlibiConfig()}
_FIELDS = {
    "vocab_size": "vocab_size", "norm_epsilon": "layer_norm_epsilon",
    "tied_embeddings": "tie_word_embeddings",
}

FAMILIES: Mapping[str, Family] = {
    "bloom": Family(
        {"vocab_size": 250_880, "hidden_size": 64, "n_layer": 2, "n_head": 8, "n_embed": None,
         "layer_norm_epsilon": 1e-5, "apply_residual_connection_post_layernorm": False,
         "hidden_dropout": 0.0, "attention_dropout": 0.0, "slow_but_exact": False,
         "tie_word_embeddings": True},
        _FIELDS | {"num_layers": "n_layer", "num_heads": "n_head", "model_dims": "hidden_size",
                   "residual_dropout": "hidden_dropout", "attention_dropout": "attention_dropout"},
        _FIXED | {"norm_bias": True, "mlp_bias": True, "qkv_bias": True, "attention_out_bias": True,
                  "activation": "gelu_new", "embedding_norm": True, "positions_pass_padding": True},
        extra=("n_embed",), rotary="none", derive=_bloom, express=_to_bloom,
        generic={"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    ),
    "mpt": Family(
        {"vocab_size": 50_368, "d_model": 2048, "n_heads": 16, "n_layers": 24,
         "layer_norm_epsilon": 1e-5, "attn_config": None, "tie_word_embeddings": True},
        _FIELDS | {"num_layers": "n_layers", "num_heads": "n_heads", "model_dims": "d_model"},
        _FIXED | {"activation": "gelu"},
        ignored=("expansion_ratio", "max_seq_len", "resid_pdrop", "emb_pdrop", "learned_pos_emb",
                 "init_device", "logit_scale", "no_bias", "embedding_fraction", "norm_type"),
        rotary="none", derive=_mpt, express=_to_mpt,
        generic={"num_attention_heads": "n_heads", "hidden_size": "d_model",
                 "num_hidden_layers": "n_layers"},
    ),
}
# fmt: on
