# ruff: noqa: E501
"""Attention and MLP in parallel, with one shared norm or one norm each."""

from collections.abc import Mapping
from dataclasses import replace

from converters.huggingface.tables.llama_like import LLAMA
from converters.huggingface.tables.parts import ATTENTION, LAYER_TOP, MLP, PRE_LAYER_NORMS
from converters.huggingface.tables.tensors import CAUSAL, RECOMPUTED, Cut, TensorTable
from converters.rules import Ignore, Rule
from efficientids_flax.config import BackboneConfig

# fmt: off
_PHI_TOP = (
    Rule("final_norm/scale",             "final_layernorm.weight"),
    Rule("final_norm/bias",              "final_layernorm.bias"),
)
_PHI = (
    *ATTENTION[:-2],
    Rule("attention/out/kernel",         "self_attn.dense.weight", "split 1 N H"),
    Rule("attention/out/bias",           "self_attn.dense.bias"),
    Rule("attention/query_norm/scale",   "self_attn.q_layernorm.weight"),  # [H]
    Rule("attention/query_norm/bias",    "self_attn.q_layernorm.bias"),
    Rule("attention/key_norm/scale",     "self_attn.k_layernorm.weight"),
    Rule("attention/key_norm/bias",      "self_attn.k_layernorm.bias"),
    Rule("attention_norm/scale",         "input_layernorm.weight"),
    Rule("attention_norm/bias",          "input_layernorm.bias"),
    Rule("mlp/up/kernel",                "mlp.fc1.weight"),
    Rule("mlp/up/bias",                  "mlp.fc1.bias"),
    Rule("mlp/down/kernel",              "mlp.fc2.weight"),
    Rule("mlp/down/bias",                "mlp.fc2.bias"),
)

_STABLELM = (
    *ATTENTION, *MLP, *PRE_LAYER_NORMS,
    Rule("attention/query_norm/scale",   "self_attn.q_layernorm.weight"),  # [N, H]
    Rule("attention/key_norm/scale",     "self_attn.k_layernorm.weight"),  # [J, H]
)
_STABLELM_STACKS = {
    f"self_attn.{name}_layernorm.weight": f"self_attn.{name}_layernorm.norms.{{j}}.weight" for name in "qk"
}

_COHERE = (
    *ATTENTION, *MLP,
    Rule("attention/query_norm/scale",   "self_attn.q_norm.weight"),       # [N, H]
    Rule("attention/key_norm/scale",     "self_attn.k_norm.weight"),       # [J, H]
    Rule("attention_norm/scale",         "input_layernorm.weight"),
)

_GPTJ_TOP = (
    Rule("final_norm/scale",             "ln_f.weight"),
    Rule("final_norm/bias",              "ln_f.bias"),
)
_GPTJ = (
    Rule("attention_norm/scale",         "ln_1.weight"),
    Rule("attention_norm/bias",          "ln_1.bias"),
    Rule("attention/query/kernel",       "attn.q_proj.weight",   "split 0 N H"),
    Rule("attention/key/kernel",         "attn.k_proj.weight",   "split 0 J H"),
    Rule("attention/value/kernel",       "attn.v_proj.weight",   "split 0 J H"),
    Rule("attention/out/kernel",         "attn.out_proj.weight", "split 1 N H"),
    Rule("mlp/up/kernel",                "mlp.fc_in.weight"),
    Rule("mlp/up/bias",                  "mlp.fc_in.bias"),
    Rule("mlp/down/kernel",              "mlp.fc_out.weight"),
    Rule("mlp/down/bias",                "mlp.fc_out.bias"),
)
# Four blocks, for the four processors that the model was trained on; values come before keys.
_CODEGEN_CUTS = {
    "attn.qkv_proj.weight": Cut((
        ("attn.q_proj.weight", "N H"), ("attn.v_proj.weight", "J H"), ("attn.k_proj.weight", "J H"),
    ), "4"),
}

_FALCON = (
    Rule("attention/query/kernel",       "self_attention.query.weight", "split 0 N H"),
    Rule("attention/query/bias",         "self_attention.query.bias",   "split 0 N H"),
    Rule("attention/key/kernel",         "self_attention.key.weight",   "split 0 J H"),
    Rule("attention/key/bias",           "self_attention.key.bias",     "split 0 J H"),
    Rule("attention/value/kernel",       "self_attention.value.weight", "split 0 J H"),
    Rule("attention/value/bias",         "self_attention.value.bias",   "split 0 J H"),
    Rule("attention/out/kernel",         "self_attention.dense.weight", "split 1 N H"),
    Rule("attention/out/bias",           "self_attention.dense.bias"),
    Rule("mlp/up/kernel",                "mlp.dense_h_to_4h.weight"),
    Rule("mlp/up/bias",                  "mlp.dense_h_to_4h.bias"),
    Rule("mlp/down/kernel",              "mlp.dense_4h_to_h.weight"),
    Rule("mlp/down/bias",                "mlp.dense_4h_to_h.bias"),
)
# For each key head: its queries, its key, its value. The old forms, with one key head or as many as
# queries, fit too.
_FALCON_CUTS = {
    f"self_attention.query_key_value.{kind}": Cut((
        (f"self_attention.query.{kind}", "N H"), (f"self_attention.key.{kind}", "J H"),
        (f"self_attention.value.{kind}", "J H"),
    ), "J")
    for kind in ("weight", "bias")
}
_FALCON_TWO_NORMS = (
    Rule("attention_norm/scale",         "ln_attn.weight"),
    Rule("attention_norm/bias",          "ln_attn.bias"),
    Rule("mlp_norm/scale",               "ln_mlp.weight"),
    Rule("mlp_norm/bias",                "ln_mlp.bias"),
)
# fmt: on


def _falcon_norms(config: BackboneConfig) -> tuple[Rule, ...]:
    two = config.parallel_residual and not config.shared_norm
    return _FALCON_TWO_NORMS if two else PRE_LAYER_NORMS


# fmt: off
_CONSTANTS = (Ignore("h.{i}.attn.bias", CAUSAL), Ignore("h.{i}.attn.masked_bias", CAUSAL), Ignore("h.{i}.attn.causal_mask", CAUSAL))
GPTJ = TensorTable("wte.weight", _GPTJ_TOP, _GPTJ, "GPTJForCausalLM", "transformer.", layers="h.{i}.", ignores=_CONSTANTS)

TABLES: Mapping[str, TensorTable] = {
    "phi":         replace(LLAMA, architecture="PhiForCausalLM", top=_PHI_TOP, layer=_PHI),
    "stablelm":    replace(LLAMA, architecture="StableLmForCausalLM", top=LAYER_TOP, layer=_STABLELM, stacks=_STABLELM_STACKS),
    "cohere":      replace(LLAMA, architecture="CohereForCausalLM", layer=_COHERE),
    "cohere2":     replace(LLAMA, architecture="Cohere2ForCausalLM", layer=_COHERE),
    "gptj":        GPTJ,
    "codegen":     replace(GPTJ, architecture="CodeGenForCausalLM", cuts=_CODEGEN_CUTS),
    "falcon":      TensorTable("word_embeddings.weight", _GPTJ_TOP, _FALCON, "FalconForCausalLM", "transformer.", layers="h.{i}.",
                               cuts=_FALCON_CUTS, layer_of=_falcon_norms, ignores=(
                                   Ignore("h.{i}.self_attention.rotary_emb.inv_freq", RECOMPUTED),
                                   Ignore("h.{i}.self_attention.maybe_rotary.inv_freq", RECOMPUTED))),
}
# fmt: on
