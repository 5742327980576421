"""Every leaf that a model can have, as tables: its path, its axes, and its conditions.

Letters: V words, T positions, D model width, N heads, J heads of keys and values, H head width, F
hidden width of the MLP, X experts, R buckets of the relative bias, P width of relative keys, U rank
of low-rank additions, W width of word embeddings if it is not D. In latent attention: Q width of
the latent of queries, C width of the latent of keys and values, Y width of that latent and the
rotated part of keys, Z width of the part of keys that is not rotated, O width of a value. In blocks
of forecasters: I input width, O output width.
"""

from collections.abc import Callable
from typing import NamedTuple

from efficientids_flax.config import BackboneConfig


class Row(NamedTuple):
    """One leaf: its path, its axes, and the conditions under which a model has it.

    Attributes:
        path: path in the tree.
        axes: letters of the axes, separated by spaces.
        when: keys of `CONDITIONS`, all of which have to hold.
        out_in: the axes if `kernel_axes` is 'out_in'; empty: the same.
    """

    path: str
    axes: str
    when: str = ""
    out_in: str = ""


# fmt: off
CONDITIONS: dict[str, Callable[[BackboneConfig], bool]] = {
    "words":           lambda c: c.vocab_size > 0,
    "separate":        lambda c: not c.tied_embeddings,
    "head":            lambda c: c.lm_head,
    "model_wide":      lambda c: c.embedding_dims is None,
    "own_width":       lambda c: c.embedding_dims is not None,
    "head_bias":       lambda c: c.lm_head_bias,
    "learned":         lambda c: c.position_embedding == "learned",
    "embedding_norm":  lambda c: c.embedding_norm,
    "final_norm":      lambda c: c.final_norm,
    "norm_scale":      lambda c: c.norm_scale,
    "norm_bias":       lambda c: c.norm_bias,
    "one_norm":        lambda c: c.norm_policy != "primer_hybrid",
    "two_norms":       lambda c: c.norm_policy == "primer_hybrid",
    "fused":           lambda c: c.fused_qkv,
    "unfused":         lambda c: not c.fused_qkv and c.latent_attention is None,
    "latent":          lambda c: c.latent_attention is not None,
    "no_latent":       lambda c: c.latent_attention is None,
    "query_latent":    lambda c: c.latent_attention is not None
                       and c.latent_attention.query_dims is not None,
    "query_direct":    lambda c: c.latent_attention is not None
                       and c.latent_attention.query_dims is None,
    "multi_head":      lambda c: not c.multi_query,
    "multi_query":     lambda c: c.multi_query,
    "qkv_bias":        lambda c: c.qkv_bias,
    "out_bias":        lambda c: c.attention_out_bias,
    "per_dim_scale":   lambda c: c.query_scaling == "per_dim_scale",
    "qk_norm_head":    lambda c: c.qk_norm == "per_head",
    "qk_norm_heads":   lambda c: c.qk_norm in ("each_head", "full"),
    "sinks":           lambda c: c.attention_sinks,
    "relative_bias":   lambda c: c.relative_bias is not None,
    "relative_keys":   lambda c: c.relative_key_dims is not None,
    "gated":           lambda c: c.gated_mlp,
    "mlp_bias":        lambda c: c.mlp_bias,
    "gated_experts":   lambda c: c.moe is not None and c.moe.gated,
    "capacity":        lambda c: c.moe is not None and c.moe.gating != "top_k",
    "top_k":           lambda c: c.moe is not None and c.moe.gating == "top_k",
    "expert_bias":     lambda c: c.moe is not None and c.moe.bias,
    "router_bias":     lambda c: c.moe is not None and c.moe.router_bias,
    "choice_bias":     lambda c: c.moe is not None and c.moe.choice_bias,
    "shared_gate":     lambda c: c.moe is not None and c.moe.shared_gate,
    "shared":          lambda c: c.moe is not None and c.moe.gating == "top_k"
                       and c.moe.shared_dims is not None,
}

TOP = (
    Row("embedding_norm/scale",               "D",   "embedding_norm norm_scale"),
    Row("embedding_norm/bias",                "D",   "embedding_norm norm_bias"),
    Row("embedder/embedding",                 "V D", "words separate model_wide"),
    Row("embedder/embedding",                 "V W", "words separate own_width"),
    Row("embedding_projection/kernel",        "W D", "own_width", "D W"),
    Row("output_projection/kernel",           "D W", "own_width head", "W D"),
    Row("position_embedding/embedding",       "T D", "learned"),
    Row("lm_head/kernel",                     "D V", "words head model_wide", "V D"),
    Row("lm_head/kernel",                     "W V", "words head own_width", "V W"),
    Row("lm_head/bias",                       "V",   "words head head_bias"),
)

FINAL_NORM = (
    Row("final_norm/scale",                   "D",   "final_norm norm_scale"),
    Row("final_norm/bias",                    "D",   "final_norm norm_bias"),
)

ATTENTION = (
    Row("attention/qkv/kernel",               "3 D N H", "fused", "3 N H D"),
    Row("attention/qkv/bias",                 "3 N H",   "fused qkv_bias"),
    Row("attention/query/kernel",             "D N H",   "unfused", "N H D"),
    Row("attention/query/bias",               "N H",     "unfused qkv_bias"),
    Row("attention/key/kernel",               "D J H",   "unfused multi_head", "J H D"),
    Row("attention/key/bias",                 "J H",     "unfused multi_head qkv_bias"),
    Row("attention/value/kernel",             "D J H",   "unfused multi_head", "J H D"),
    Row("attention/value/bias",               "J H",     "unfused multi_head qkv_bias"),
    Row("attention/key/kernel",               "D H",     "unfused multi_query", "H D"),
    Row("attention/key/bias",                 "H",       "unfused multi_query qkv_bias"),
    Row("attention/value/kernel",             "D H",     "unfused multi_query", "H D"),
    Row("attention/value/bias",               "H",       "unfused multi_query qkv_bias"),
    Row("attention/query_latent/kernel",      "D Q",     "query_latent", "Q D"),
    Row("attention/query_latent/bias",        "Q",       "query_latent qkv_bias"),
    Row("attention/query_latent_norm/scale",  "Q",       "query_latent"),
    Row("attention/query/kernel",             "Q N H",   "query_latent", "N H Q"),
    Row("attention/query/kernel",             "D N H",   "query_direct", "N H D"),
    Row("attention/latent/kernel",            "D Y",     "latent", "Y D"),
    Row("attention/latent/bias",              "Y",       "latent qkv_bias"),
    Row("attention/latent_norm/scale",        "C",       "latent"),
    Row("attention/key/kernel",               "C N Z",   "latent", "N Z C"),
    Row("attention/value/kernel",             "C N O",   "latent", "N O C"),
    Row("attention/out/kernel",               "D N O",   "latent"),
    Row("attention/out/kernel",               "D N H",   "no_latent"),
    Row("attention/out/bias",                 "D",       "out_bias"),
    Row("attention/per_dim_scale",            "H",       "per_dim_scale"),
    Row("attention/sinks",                    "N",       "sinks"),
    Row("attention/relative_bias/embedding",  "N R",     "relative_bias"),
    Row("attention/relative_key/kernel",      "P N H",   "relative_keys"),
    Row("attention/relative_key/key_bias",    "N H",     "relative_keys qkv_bias"),
    Row("attention/relative_key/distance_bias", "N H",   "relative_keys qkv_bias"),
)

# Norms are in tables of their own, since their settings can differ by place.
QUERY_KEY_NORM = (
    Row("attention/query_norm/scale",         "H",       "qk_norm_head norm_scale"),
    Row("attention/key_norm/scale",           "H",       "qk_norm_head norm_scale"),
    Row("attention/query_norm/bias",          "H",       "qk_norm_head norm_bias"),
    Row("attention/key_norm/bias",            "H",       "qk_norm_head norm_bias"),
    Row("attention/query_norm/scale",         "N H",     "qk_norm_heads norm_scale"),
    Row("attention/key_norm/scale",           "J H",     "qk_norm_heads norm_scale"),
    Row("attention/query_norm/bias",          "N H",     "qk_norm_heads norm_bias"),
    Row("attention/key_norm/bias",            "J H",     "qk_norm_heads norm_bias"),
)

ATTENTION_NORM = (
    Row("attention_norm/scale",               "D", "one_norm norm_scale"),
    Row("attention_norm/bias",                "D", "one_norm norm_bias"),
    Row("pre_attention_norm/scale",           "D", "two_norms norm_scale"),
    Row("pre_attention_norm/bias",            "D", "two_norms norm_bias"),
    Row("post_attention_norm/scale",          "D", "two_norms norm_scale"),
    Row("post_attention_norm/bias",           "D", "two_norms norm_bias"),
)
MLP_NORM = (
    Row("mlp_norm/scale",                     "D", "one_norm norm_scale"),
    Row("mlp_norm/bias",                      "D", "one_norm norm_bias"),
    Row("pre_mlp_norm/scale",                 "D", "two_norms norm_scale"),
    Row("pre_mlp_norm/bias",                  "D", "two_norms norm_bias"),
    Row("post_mlp_norm/scale",                "D", "two_norms norm_scale"),
    Row("post_mlp_norm/bias",                 "D", "two_norms norm_bias"),
)

NORMS = (*FINAL_NORM, *QUERY_KEY_NORM, *ATTENTION_NORM, *MLP_NORM)

MLP = (
    Row("mlp/up/kernel",                      "D F", "", "F D"),
    Row("mlp/up/bias",                        "F",   "mlp_bias"),
    Row("mlp/gate/kernel",                    "D F", "gated", "F D"),
    Row("mlp/gate/bias",                      "F",   "gated mlp_bias"),
    Row("mlp/down/kernel",                    "F D", "", "D F"),
    Row("mlp/down/bias",                      "D",   "mlp_bias"),
)

MOE = (
    Row("moe/router/kernel",                  "D X",   "capacity"),
    Row("moe/up/kernel",                      "X D F", "capacity"),
    Row("moe/gate/kernel",                    "X D F", "capacity gated_experts"),
    Row("moe/down/kernel",                    "X F D", "capacity"),
    Row("moe/router/kernel",                  "D X",   "top_k", "X D"),
    Row("moe/router/bias",                    "X",     "top_k router_bias"),
    Row("moe/router/choice_bias",             "X",     "top_k choice_bias"),
    Row("moe/up/kernel",                      "X D F", "top_k", "X F D"),
    Row("moe/up/bias",                        "X F",   "top_k expert_bias"),
    Row("moe/gate/kernel",                    "X D F", "top_k gated_experts", "X F D"),
    Row("moe/gate/bias",                      "X F",   "top_k gated_experts expert_bias"),
    Row("moe/down/kernel",                    "X F D", "top_k", "X D F"),
    Row("moe/down/bias",                      "X D",   "top_k expert_bias"),
    Row("moe/shared_gate/kernel",             "D 1",   "top_k shared_gate", "1 D"),
)
# The MLP that all tokens go through beside the experts; it has a hidden width of its own.
SHARED = (
    Row("moe/shared/up/kernel",               "D F",   "shared", "F D"),
    Row("moe/shared/up/bias",                 "F",     "shared mlp_bias"),
    Row("moe/shared/gate/kernel",             "D F",   "shared gated", "F D"),
    Row("moe/shared/gate/bias",               "F",     "shared gated mlp_bias"),
    Row("moe/shared/down/kernel",             "F D",   "shared", "D F"),
    Row("moe/shared/down/bias",               "D",     "shared mlp_bias"),
)

# Low-rank additions to the projections in `LoraConfig.targets`; see `backbone.lora`.
LORA = (
    Row("attention/qkv/lora_a",               "3 D U",   "fused"),
    Row("attention/qkv/lora_b",               "3 U N H", "fused"),
    Row("attention/query/lora_a",             "D U",     "unfused"),
    Row("attention/query/lora_b",             "U N H",   "unfused"),
    Row("attention/key/lora_a",               "D U",     "unfused"),
    Row("attention/key/lora_b",               "U J H",   "unfused multi_head"),
    Row("attention/key/lora_b",               "U H",     "unfused multi_query"),
    Row("attention/value/lora_a",             "D U",     "unfused"),
    Row("attention/value/lora_b",             "U J H",   "unfused multi_head"),
    Row("attention/value/lora_b",             "U H",     "unfused multi_query"),
    Row("attention/out/lora_a",               "N H U"),
    Row("attention/out/lora_b",               "U D"),
)
MLP_LORA = (
    Row("mlp/up/lora_a",                      "D U"),
    Row("mlp/up/lora_b",                      "U F"),
    Row("mlp/gate/lora_a",                    "D U", "gated"),
    Row("mlp/gate/lora_b",                    "U F", "gated"),
    Row("mlp/down/lora_a",                    "F U"),
    Row("mlp/down/lora_b",                    "U D"),
)

# The blocks before and after a forecaster's decoder: one reads patches, one writes forecasts.
BLOCK = (
    Row("hidden/kernel",                      "I F"),
    Row("hidden/bias",                        "F"),
    Row("output/kernel",                      "F O"),
    Row("output/bias",                        "O"),
    Row("residual/kernel",                    "I O"),
    Row("residual/bias",                      "O"),
)
# fmt: on
