# ruff: noqa: E501
"""Llama and its kin, Gemma among them: a `Linear` for each of queries, keys and values."""

from collections.abc import Mapping
from dataclasses import replace

from converters.huggingface.tables.parts import (
    ATTENTION,
    FOUR_NORMS,
    FULL_NORMS,
    HEAD_NORMS,
    MLP,
    POST_NORMS,
    PRE_NORMS,
    ROTARY,
    TOP,
)
from converters.huggingface.tables.tensors import TensorTable

# fmt: off
_PHI3_CUTS = {
    "self_attn.qkv_proj.weight": (("self_attn.q_proj.weight", "N H"), ("self_attn.k_proj.weight", "J H"),
                                  ("self_attn.v_proj.weight", "J H")),
    "mlp.gate_up_proj.weight":   (("mlp.gate_proj.weight", "F"), ("mlp.up_proj.weight", "F")),
}

LLAMA = TensorTable("embed_tokens.weight", TOP, (*ATTENTION, *MLP, *PRE_NORMS), "LlamaForCausalLM", ignores=ROTARY)

TABLES: Mapping[str, TensorTable] = {
    "llama":       LLAMA,
    "mistral":     replace(LLAMA, architecture="MistralForCausalLM"),
    "qwen2":       replace(LLAMA, architecture="Qwen2ForCausalLM"),
    "gemma":       replace(LLAMA, architecture="GemmaForCausalLM"),
    "smollm3":     replace(LLAMA, architecture="SmolLM3ForCausalLM"),
    "granite":     replace(LLAMA, architecture="GraniteForCausalLM"),
    "qwen3":       replace(LLAMA, architecture="Qwen3ForCausalLM", layer=(*ATTENTION, *HEAD_NORMS, *MLP, *PRE_NORMS)),
    "gemma2":      replace(LLAMA, architecture="Gemma2ForCausalLM", layer=(*ATTENTION, *MLP, *FOUR_NORMS)),
    "gemma3_text": replace(LLAMA, architecture="Gemma3ForCausalLM", layer=(*ATTENTION, *HEAD_NORMS, *MLP, *FOUR_NORMS)),
    "olmo2":       replace(LLAMA, architecture="Olmo2ForCausalLM", layer=(*ATTENTION, *FULL_NORMS, *MLP, *POST_NORMS)),
    "phi3":        replace(LLAMA, architecture="Phi3ForCausalLM", cuts=_PHI3_CUTS),
}
# fmt: on
