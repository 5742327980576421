# ruff: noqa: E501
"""Bloom and MPT: queries, keys and values in one kernel, and no position embeddings."""

from collections.abc import Mapping

from converters.huggingface.tables.parts import neox_layer
from converters.huggingface.tables.tensors import CAUSAL, TensorTable
from converters.rules import Ignore, Rule

# fmt: off
_BLOOM_TOP = (
    Rule("embedding_norm/scale",   "word_embeddings_layernorm.weight"),
    Rule("embedding_norm/bias",    "word_embeddings_layernorm.bias"),
    Rule("final_norm/scale",       "ln_f.weight"),
    Rule("final_norm/bias",        "ln_f.bias"),
)
_BLOOM = neox_layer("self_attention")

_MPT_TOP = (Rule("final_norm/scale", "norm_f.weight"),)
_MPT = (
    Rule("attention_norm/scale",   "norm_1.weight"),
    Rule("attention/qkv/kernel",   "attn.Wqkv.weight",     "split 0 3 NH; split 1 N H"),  # [3 N H, D] -> [3, N, H, D]
    Rule("attention/out/kernel",   "attn.out_proj.weight", "split 1 N H"),
    Rule("mlp_norm/scale",         "norm_2.weight"),
    Rule("mlp/{up|down}/kernel",   "ffn.{up|down}_proj.weight"),
)

TABLES: Mapping[str, TensorTable] = {
    "bloom": TensorTable("word_embeddings.weight", _BLOOM_TOP, _BLOOM, "BloomForCausalLM", "transformer.", layers="h.{i}.",
                         ignores=(Ignore("h.{i}.self_attention.attention_mask", CAUSAL),)),
    "mpt":   TensorTable("wte.weight", _MPT_TOP, _MPT, "MptForCausalLM", "transformer.", layers="blocks.{i}."),
}
# fmt: on
