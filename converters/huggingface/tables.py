# ruff: noqa: E501
"""The tensors of each HuggingFace family, one table a family: our parameter, their name, operation.

Letters in operations stand for sizes: D model width, N heads, J heads of keys and values, H head width, F hidden
width. Kernels stay as they lie: a `Linear` holds (out, in), GPT-2's `Conv1D` (in, out), and `Family.kernel_axes` says
which. Norm scales stay as they are stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from converters.rules import Ignore, Rule

TO_IN_OUT = "transpose 1 0"


@dataclass(frozen=True)
class TensorTable:
    """The tensors of one family.

    Attributes:
        embedding: name of the word embeddings [V, D]; what stands before it is the prefix of all names.
        top: rules for names after that prefix.
        layer: rules for names after `layers`.
        layers: what a layer's names begin with.
        cuts: name in a layer of tensors that are several in one -> (name, rows) of each part.
        ignores: names after the prefix, and why they are left out.
        architecture: class of `transformers`, which `config.json` names.
        prefix: what stands before the names where a model is written.
        head: name of the head there.
    """

    embedding: str
    top: tuple[Rule, ...]
    layer: tuple[Rule, ...]
    architecture: str
    prefix: str = "model."
    head: str = "lm_head.weight"
    layers: str = "layers.{i}."
    cuts: Mapping[str, tuple[tuple[str, str], ...]] | None = None
    ignores: tuple[Ignore, ...] = ()


RECOMPUTED = "frequencies that the configuration gives"
CAUSAL = "a constant mask"
IMAGES = "for images; the language model is loaded"
# Tensors outside of the language model, by full name.
OUTSIDE = (
    Ignore("vision_tower.{rest*}", IMAGES), Ignore("model.vision_tower.{rest*}", IMAGES),
    Ignore("multi_modal_projector.{rest*}", IMAGES), Ignore("model.multi_modal_projector.{rest*}", IMAGES),
)  # fmt: skip
HEADS = ("lm_head.weight", "embed_out.weight")  # the latter is GPT-NeoX's, up to transformers 4

# fmt: off
_TOP = (Rule("final_norm/scale", "norm.weight"),)  # [D]

_ATTENTION = (
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
_HEAD_NORMS = (
    Rule("attention/query_norm/scale", "self_attn.q_norm.weight"),  # [H]
    Rule("attention/key_norm/scale",   "self_attn.k_norm.weight"),
)
_FULL_NORMS = (
    Rule("attention/query_norm/scale", "self_attn.q_norm.weight", "split 0 N H"),
    Rule("attention/key_norm/scale",   "self_attn.k_norm.weight", "split 0 J H"),
)
_MLP = (
    Rule("mlp/{up|gate|down}/kernel",  "mlp.{up|gate|down}_proj.weight"),
    Rule("mlp/{up|gate|down}/bias",    "mlp.{up|gate|down}_proj.bias"),
)
_PRE_NORMS = (
    Rule("attention_norm/scale",       "input_layernorm.weight"),
    Rule("mlp_norm/scale",             "post_attention_layernorm.weight"),
)
_POST_NORMS = (
    Rule("attention_norm/scale",       "post_attention_layernorm.weight"),
    Rule("mlp_norm/scale",             "post_feedforward_layernorm.weight"),
)
_FOUR_NORMS = (
    Rule("pre_attention_norm/scale",   "input_layernorm.weight"),
    Rule("post_attention_norm/scale",  "post_attention_layernorm.weight"),
    Rule("pre_mlp_norm/scale",         "pre_feedforward_layernorm.weight"),
    Rule("post_mlp_norm/scale",        "post_feedforward_layernorm.weight"),
)
_ROTARY = (
    Ignore("layers.{i}.self_attn.rotary_emb.inv_freq", RECOMPUTED),
    Ignore("rotary_emb.inv_freq", RECOMPUTED),
)

_PHI3_CUTS = {
    "self_attn.qkv_proj.weight": (("self_attn.q_proj.weight", "N H"), ("self_attn.k_proj.weight", "J H"),
                                  ("self_attn.v_proj.weight", "J H")),
    "mlp.gate_up_proj.weight":   (("mlp.gate_proj.weight", "F"), ("mlp.up_proj.weight", "F")),
}

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

_NEOX_TOP = (
    Rule("final_norm/scale", "final_layer_norm.weight"),
    Rule("final_norm/bias",  "final_layer_norm.bias"),
)
_NEOX = (
    Rule("attention_norm/scale",   "input_layernorm.weight"),
    Rule("attention_norm/bias",    "input_layernorm.bias"),
    # Rows go head by head: its query, its key, its value.
    Rule("attention/qkv/kernel",   "attention.query_key_value.weight", "split 0 N 3H; split 1 3 H; transpose 1 0 2 3"),  # [N 3 H, D] -> [3, N, H, D]
    Rule("attention/qkv/bias",     "attention.query_key_value.bias",   "split 0 N 3H; split 1 3 H; transpose 1 0 2"),
    Rule("attention/out/kernel",   "attention.dense.weight",           "split 1 N H"),
    Rule("attention/out/bias",     "attention.dense.bias"),
    Rule("mlp_norm/scale",         "post_attention_layernorm.weight"),
    Rule("mlp_norm/bias",          "post_attention_layernorm.bias"),
    Rule("mlp/up/kernel",          "mlp.dense_h_to_4h.weight"),
    Rule("mlp/up/bias",            "mlp.dense_h_to_4h.bias"),
    Rule("mlp/down/kernel",        "mlp.dense_4h_to_h.weight"),
    Rule("mlp/down/bias",          "mlp.dense_4h_to_h.bias"),
)

_LLAMA = TensorTable("embed_tokens.weight", _TOP, (*_ATTENTION, *_MLP, *_PRE_NORMS), "LlamaForCausalLM", ignores=_ROTARY)

TABLES: Mapping[str, TensorTable] = {
    "llama":       _LLAMA,
    "mistral":     replace(_LLAMA, architecture="MistralForCausalLM"),
    "qwen2":       replace(_LLAMA, architecture="Qwen2ForCausalLM"),
    "gemma":       replace(_LLAMA, architecture="GemmaForCausalLM"),
    "smollm3":     replace(_LLAMA, architecture="SmolLM3ForCausalLM"),
    "granite":     replace(_LLAMA, architecture="GraniteForCausalLM"),
    "qwen3":       replace(_LLAMA, architecture="Qwen3ForCausalLM", layer=(*_ATTENTION, *_HEAD_NORMS, *_MLP, *_PRE_NORMS)),
    "gemma2":      replace(_LLAMA, architecture="Gemma2ForCausalLM", layer=(*_ATTENTION, *_MLP, *_FOUR_NORMS)),
    "gemma3_text": replace(_LLAMA, architecture="Gemma3ForCausalLM", layer=(*_ATTENTION, *_HEAD_NORMS, *_MLP, *_FOUR_NORMS)),
    "olmo2":       replace(_LLAMA, architecture="Olmo2ForCausalLM", layer=(*_ATTENTION, *_FULL_NORMS, *_MLP, *_POST_NORMS)),
    "phi3":        replace(_LLAMA, architecture="Phi3ForCausalLM", cuts=_PHI3_CUTS),
    "gpt2":        TensorTable("wte.weight", _GPT2_TOP, _GPT2, "GPT2LMHeadModel", "transformer.", layers="h.{i}.", ignores=(
        Ignore("h.{i}.attn.bias", CAUSAL), Ignore("h.{i}.attn.masked_bias", CAUSAL))),
    "gpt_neox":    TensorTable("embed_in.weight", _NEOX_TOP, _NEOX, "GPTNeoXForCausalLM", "gpt_neox.", "embed_out.weight", ignores=(
        Ignore("layers.{i}.attention.bias", CAUSAL), Ignore("layers.{i}.attention.masked_bias", CAUSAL),
        Ignore("layers.{i}.attention.rotary_emb.inv_freq", RECOMPUTED), Ignore("rotary_emb.inv_freq", RECOMPUTED))),
}
# fmt: on
