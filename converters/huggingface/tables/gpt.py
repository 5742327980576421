# ruff: noqa: E501
"""GPT-2, GPT-BigCode and GPT-NeoX: queries, keys and values in one tensor."""

from collections.abc import Mapping

from converters.huggingface.tables.parts import neox_layer
from converters.huggingface.tables.tensors import CAUSAL, RECOMPUTED, Cut, TensorTable
from converters.rules import Ignore, Rule

# fmt: off
_GPT2_TOP = (
    Rule("position_embedding/embedding", "wpe.weight"),  # [T, D]
    Rule("final_norm/scale",             "ln_f.weight"),
    Rule("final_norm/bias",              "ln_f.bias"),
)
_GPT2 = (
    Rule("attention_norm/scale",   "ln_1.weight"),
    Rule("attention_norm/bias",    "ln_1.bias"),
    Rule("attention/qkv/kernel",   "attn.c_attn.weight", "split 1 3 NH; split 2 N H; transpose 1 0 2 3"),  # [D, 3 N H] -> [3, D, N, H]
    Rule("attention/qkv/bias",     "attn.c_attn.bias",   "split 0 3 NH; split 1 N H"),
    Rule("attention/out/kernel",   "attn.c_proj.weight", "transpose 1 0; split 1 N H"),                    # [N H, D] -> [D, N, H]
    Rule("attention/out/bias",     "attn.c_proj.bias"),
    Rule("mlp_norm/scale",         "ln_2.weight"),
    Rule("mlp_norm/bias",          "ln_2.bias"),
    Rule("mlp/up/kernel",          "mlp.c_fc.weight"),
    Rule("mlp/up/bias",            "mlp.c_fc.bias"),
    Rule("mlp/down/kernel",        "mlp.c_proj.weight"),
    Rule("mlp/down/bias",          "mlp.c_proj.bias"),
)

_BIGCODE = (
    *_GPT2[:2],
    Rule("attention/query/kernel", "attn.query.weight",  "split 0 N H"),
    Rule("attention/query/bias",   "attn.query.bias",    "split 0 N H"),
    Rule("attention/key/kernel",   "attn.key.weight",    "split 0 J H"),
    Rule("attention/key/bias",     "attn.key.bias",      "split 0 J H"),
    Rule("attention/value/kernel", "attn.value.weight",  "split 0 J H"),
    Rule("attention/value/bias",   "attn.value.bias",    "split 0 J H"),
    Rule("attention/out/kernel",   "attn.c_proj.weight", "split 1 N H"),
    *_GPT2[5:],
)
_BIGCODE_CUTS = {
    f"attn.c_attn.{kind}": Cut((
        (f"attn.query.{kind}", "N H"), (f"attn.key.{kind}", "J H"), (f"attn.value.{kind}", "J H"),
    ), "J")
    for kind in ("weight", "bias")
}

_NEOX_TOP = (
    Rule("final_norm/scale", "final_layer_norm.weight"),
    Rule("final_norm/bias",  "final_layer_norm.bias"),
)
_NEOX = neox_layer("attention")

TABLES: Mapping[str, TensorTable] = {
    "gpt2":        TensorTable("wte.weight", _GPT2_TOP, _GPT2, "GPT2LMHeadModel", "transformer.", layers="h.{i}.", ignores=(
        Ignore("h.{i}.attn.bias", CAUSAL), Ignore("h.{i}.attn.masked_bias", CAUSAL))),
    "gpt_bigcode": TensorTable("wte.weight", _GPT2_TOP, _BIGCODE, "GPTBigCodeForCausalLM", "transformer.", layers="h.{i}.", cuts=_BIGCODE_CUTS, ignores=(
        Ignore("h.{i}.attn.bias", CAUSAL), Ignore("h.{i}.attn.masked_bias", CAUSAL))),
    "gpt_neox":    TensorTable("embed_in.weight", _NEOX_TOP, _NEOX, "GPTNeoXForCausalLM", "gpt_neox.", "embed_out.weight", ignores=(
        Ignore("layers.{i}.attention.bias", CAUSAL), Ignore("layers.{i}.attention.masked_bias", CAUSAL),
        Ignore("layers.{i}.attention.rotary_emb.inv_freq", RECOMPUTED), Ignore("rotary_emb.inv_freq", RECOMPUTED))),
}
# fmt: on
