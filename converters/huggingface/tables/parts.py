# ruff: noqa: E501
"""Rules that the tables of several families share."""

from converters.huggingface.tables.tensors import RECOMPUTED
from converters.rules import Ignore, Rule

# fmt: off
TOP = (Rule("final_norm/scale", "norm.weight"),)  # [D]

ATTENTION = (
    # target                        source                        operation
    Rule("attention/query/kernel",  "self_attn.q_proj.weight",    "split 0 N H"),  # [N H, D] -> [N, H, D]
    Rule("attention/query/bias",    "self_attn.q_proj.bias",      "split 0 N H"),
    Rule("attention/key/kernel",    "self_attn.k_proj.weight",    "split 0 J H"),
    Rule("attention/key/bias",      "self_attn.k_proj.bias",      "split 0 J H"),
    Rule("attention/value/kernel",  "self_attn.v_proj.weight",    "split 0 J H"),
    Rule("attention/value/bias",    "self_attn.v_proj.bias",      "split 0 J H"),
    Rule("attention/out/kernel",    "self_attn.o_proj.weight",    "split 1 N H"),  # [D, N H] -> [D, N, H]
    Rule("attention/out/bias",      "self_attn.o_proj.bias"),
)
HEAD_NORMS = (
    Rule("attention/query_norm/scale", "self_attn.q_norm.weight"),  # [H]
    Rule("attention/key_norm/scale",   "self_attn.k_norm.weight"),
)
FULL_NORMS = (
    Rule("attention/query_norm/scale", "self_attn.q_norm.weight", "split 0 N H"),
    Rule("attention/key_norm/scale",   "self_attn.k_norm.weight", "split 0 J H"),
)
MLP = (
    Rule("mlp/{up|gate|down}/kernel",  "mlp.{up|gate|down}_proj.weight"),
    Rule("mlp/{up|gate|down}/bias",    "mlp.{up|gate|down}_proj.bias"),
)
PRE_NORMS = (
    Rule("attention_norm/scale",       "input_layernorm.weight"),
    Rule("mlp_norm/scale",             "post_attention_layernorm.weight"),
)
LAYER_TOP = (*TOP, Rule("final_norm/bias", "norm.bias"))
PRE_LAYER_NORMS = (
    *PRE_NORMS,
    Rule("attention_norm/bias",        "input_layernorm.bias"),
    Rule("mlp_norm/bias",              "post_attention_layernorm.bias"),
)
POST_NORMS = (
    Rule("attention_norm/scale",       "post_attention_layernorm.weight"),
    Rule("mlp_norm/scale",             "post_feedforward_layernorm.weight"),
)
FOUR_NORMS = (
    Rule("pre_attention_norm/scale",   "input_layernorm.weight"),
    Rule("post_attention_norm/scale",  "post_attention_layernorm.weight"),
    Rule("pre_mlp_norm/scale",         "pre_feedforward_layernorm.weight"),
    Rule("post_mlp_norm/scale",        "post_feedforward_layernorm.weight"),
)
ROTARY = (
    Ignore("layers.{i}.self_attn.rotary_emb.{inv_freq|cos_cached|sin_cached}", RECOMPUTED),
    Ignore("{rotary_emb|rotary_emb_local}.inv_freq", RECOMPUTED),
)


def neox_layer(attention: str) -> tuple[Rule, ...]:
    """A layer of GPT-NeoX or Bloom; `attention` is the name of its attention."""
    return (
        Rule("attention_norm/scale",   "input_layernorm.weight"),
        Rule("attention_norm/bias",    "input_layernorm.bias"),
        # For each head: its query, its key, its value.
        Rule("attention/qkv/kernel",   f"{attention}.query_key_value.weight", "split 0 N 3H; split 1 3 H; transpose 1 0 2 3"),  # [N 3 H, D] -> [3, N, H, D]
        Rule("attention/qkv/bias",     f"{attention}.query_key_value.bias",   "split 0 N 3H; split 1 3 H; transpose 1 0 2"),
        Rule("attention/out/kernel",   f"{attention}.dense.weight",           "split 1 N H"),
        Rule("attention/out/bias",     f"{attention}.dense.bias"),
        Rule("mlp_norm/scale",         "post_attention_layernorm.weight"),
        Rule("mlp_norm/bias",          "post_attention_layernorm.bias"),
        Rule("mlp/up/kernel",          "mlp.dense_h_to_4h.weight"),
        Rule("mlp/up/bias",            "mlp.dense_h_to_4h.bias"),
        Rule("mlp/down/kernel",        "mlp.dense_4h_to_h.weight"),
        Rule("mlp/down/bias",          "mlp.dense_4h_to_h.bias"),
    )
# fmt: on
