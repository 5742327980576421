# ruff: noqa: E501
"""Llama and similar families, including Gemma: a `Linear` each for queries, keys and values."""

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
from converters.huggingface.tables.tensors import Cut, TensorTable
from converters.rules import Rule

# fmt: off
_GATE_UP = {"mlp.gate_up_proj.weight": Cut((("mlp.gate_proj.weight", "F"), ("mlp.up_proj.weight", "F")))}
_PHI3_CUTS = _GATE_UP | {
    "self_attn.qkv_proj.weight": Cut((
        ("self_attn.q_proj.weight", "N H"), ("self_attn.k_proj.weight", "J H"), ("self_attn.v_proj.weight", "J H"),
    )),
}
_GLM4_NORMS = (
    Rule("pre_attention_norm/scale",   "input_layernorm.weight"),
    Rule("post_attention_norm/scale",  "post_self_attn_layernorm.weight"),
    Rule("pre_mlp_norm/scale",         "post_attention_layernorm.weight"),
    Rule("post_mlp_norm/scale",        "post_mlp_layernorm.weight"),
)

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
    "olmo3":       replace(LLAMA, architecture="Olmo3ForCausalLM", layer=(*ATTENTION, *FULL_NORMS, *MLP, *POST_NORMS)),
    "exaone4":     replace(LLAMA, architecture="Exaone4ForCausalLM", layer=(*ATTENTION, *HEAD_NORMS, *MLP, *POST_NORMS)),
    "phi3":        replace(LLAMA, architecture="Phi3ForCausalLM", cuts=_PHI3_CUTS),
    "glm":         replace(LLAMA, architecture="GlmForCausalLM", cuts=_GATE_UP),
    "glm4":        replace(LLAMA, architecture="Glm4ForCausalLM", layer=(*ATTENTION, *MLP, *_GLM4_NORMS), cuts=_GATE_UP),
    "seed_oss":    replace(LLAMA, architecture="SeedOssForCausalLM"),
    "arcee":       replace(LLAMA, architecture="ArceeForCausalLM"),
    "ministral":   replace(LLAMA, architecture="MinistralForCausalLM"),
    "ministral3":  replace(LLAMA, architecture="Ministral3ForCausalLM"),
}
# fmt: on
