# ruff: noqa: E501
"""Families with LayerNorm instead of RMSNorm, and with attention and MLP in sequence."""

from collections.abc import Mapping
from dataclasses import replace

from converters.huggingface.tables.llama_like import LLAMA
from converters.huggingface.tables.parts import ATTENTION, LAYER_TOP, MLP, PRE_LAYER_NORMS
from converters.huggingface.tables.tensors import TensorTable
from converters.rules import Rule

# fmt: off
_STARCODER2_MLP = (
    Rule("mlp/up/kernel",    "mlp.c_fc.weight"),
    Rule("mlp/up/bias",      "mlp.c_fc.bias"),
    Rule("mlp/down/kernel",  "mlp.c_proj.weight"),
    Rule("mlp/down/bias",    "mlp.c_proj.bias"),
)

_OPT_TOP = (
    Rule("position_embedding/embedding",  "embed_positions.weight"),  # [T + 2, D]
    Rule("final_norm/scale",              "final_layer_norm.weight"),
    Rule("final_norm/bias",               "final_layer_norm.bias"),
    Rule("embedding_projection/kernel",   "project_in.weight"),       # [D, E]
    Rule("output_projection/kernel",      "project_out.weight"),      # [E, D]
)
_OPT = (
    *ATTENTION[:-2],
    Rule("attention/out/kernel",  "self_attn.out_proj.weight", "split 1 N H"),
    Rule("attention/out/bias",    "self_attn.out_proj.bias"),
    Rule("attention_norm/scale",  "self_attn_layer_norm.weight"),
    Rule("attention_norm/bias",   "self_attn_layer_norm.bias"),
    Rule("mlp_norm/scale",        "final_layer_norm.weight"),
    Rule("mlp_norm/bias",         "final_layer_norm.bias"),
    Rule("mlp/up/kernel",         "fc1.weight"),
    Rule("mlp/up/bias",           "fc1.bias"),
    Rule("mlp/down/kernel",       "fc2.weight"),
    Rule("mlp/down/bias",         "fc2.bias"),
)

TABLES: Mapping[str, TensorTable] = {
    "starcoder2":  replace(LLAMA, architecture="Starcoder2ForCausalLM", top=LAYER_TOP, layer=(*ATTENTION, *_STARCODER2_MLP, *PRE_LAYER_NORMS)),
    "nemotron":    replace(LLAMA, architecture="NemotronForCausalLM", top=LAYER_TOP, layer=(*ATTENTION, *MLP, *PRE_LAYER_NORMS)),
    "olmo":        replace(LLAMA, architecture="OlmoForCausalLM", top=(), layer=(*ATTENTION, *MLP)),
    "opt":         TensorTable("embed_tokens.weight", _OPT_TOP, _OPT, "OPTForCausalLM", "model.decoder."),
}
# fmt: on
