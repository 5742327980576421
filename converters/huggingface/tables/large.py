# ruff: noqa: E501
"""gpt-oss and DeepSeek-V3: mixtures of experts with special kinds of attention."""

from collections.abc import Mapping

from converters.huggingface.tables.parts import ATTENTION, MLP, PRE_NORMS, ROTARY, TOP
from converters.huggingface.tables.tensors import Cut, Fused, TensorTable
from converters.rules import Rule
from efficientids_flax.config import BackboneConfig

# fmt: off
_GPT_OSS = (
    Rule("attention/sinks",         "self_attn.sinks"),                                  # [N]
    Rule("moe/router/kernel",       "mlp.router.weight"),                                # [X, D]
    Rule("moe/router/bias",         "mlp.router.bias"),
    Rule("moe/{gate|up}/kernel",    "mlp.experts.{gate|up}_proj"),
    Rule("moe/{gate|up}/bias",      "mlp.experts.{gate|up}_proj_bias"),
    Rule("moe/down/kernel",         "mlp.experts.down_proj",      "transpose 0 2 1"),    # [X, FX, D] -> [X, D, FX]
    Rule("moe/down/bias",           "mlp.experts.down_proj_bias"),
)
# Columns alternate: gate, up, gate, up ...
_GPT_OSS_FUSED = {
    "mlp.experts.gate_up_proj":      Fused(("mlp.experts.gate_proj", "mlp.experts.up_proj"), "split 2 FX 2; transpose 3 0 2 1", written=True),
    "mlp.experts.gate_up_proj_bias": Fused(("mlp.experts.gate_proj_bias", "mlp.experts.up_proj_bias"), "split 1 FX 2; transpose 2 0 1", written=True),
}

_LATENT = (
    # target                            source                                operation
    Rule("attention/latent/kernel",     "self_attn.kv_a_proj_with_mqa.weight"),           # [C + R, D]
    Rule("attention/latent/bias",       "self_attn.kv_a_proj_with_mqa.bias"),
    Rule("attention/latent_norm/scale", "self_attn.kv_a_layernorm.weight"),
    Rule("attention/key/kernel",        "self_attn.k_b_proj.weight",          "split 0 N Z"),
    Rule("attention/value/kernel",      "self_attn.v_b_proj.weight",          "split 0 N O"),
    Rule("attention/out/kernel",        "self_attn.o_proj.weight",            "split 1 N O"),
    Rule("attention/out/bias",          "self_attn.o_proj.bias"),
)
_QUERY = (Rule("attention/query/kernel", "self_attn.q_proj.weight", "split 0 N H"),)
_QUERY_LATENT = (
    Rule("attention/query_latent/kernel",     "self_attn.q_a_proj.weight"),
    Rule("attention/query_latent/bias",       "self_attn.q_a_proj.bias"),
    Rule("attention/query_latent_norm/scale", "self_attn.q_a_layernorm.weight"),
    Rule("attention/query/kernel",            "self_attn.q_b_proj.weight", "split 0 N H"),
)
_DEEPSEEK = (
    Rule("moe/router/kernel",                "mlp.gate.weight"),
    Rule("moe/router/choice_bias",           "mlp.gate.e_score_correction_bias"),
    Rule("moe/{up|gate|down}/kernel",        "mlp.experts.{up|gate|down}_proj.weight"),
    Rule("moe/shared/{up|gate|down}/kernel", "mlp.shared_experts.{up|gate|down}_proj.weight"),
)
_DEEPSEEK_STACKS = {f"mlp.experts.{name}_proj.weight": f"mlp.experts.{{j}}.{name}_proj.weight" for name in ("up", "gate", "down")}
_DEEPSEEK_FUSED = {
    "mlp.experts.gate_up_proj": Fused(("mlp.experts.gate_proj.weight", "mlp.experts.up_proj.weight"), "split 1 2 FX; transpose 1 0 2 3"),
    "mlp.experts.down_proj":    Fused(("mlp.experts.down_proj.weight",)),
}
# For each head: its key, then its value.
_DEEPSEEK_CUTS = {"self_attn.kv_b_proj.weight": Cut((("self_attn.k_b_proj.weight", "N Z"), ("self_attn.v_b_proj.weight", "N O")), "N")}


def _queries(config: BackboneConfig) -> tuple[Rule, ...]:
    own = config.latent_attention
    return _QUERY if own is None or own.query_dims is None else _QUERY_LATENT


TABLES: Mapping[str, TensorTable] = {
    "gpt_oss":     TensorTable("embed_tokens.weight", TOP, (*ATTENTION, *_GPT_OSS, *PRE_NORMS), "GptOssForCausalLM", ignores=ROTARY, fused=_GPT_OSS_FUSED),
    "deepseek_v3": TensorTable("embed_tokens.weight", TOP, (*_LATENT, *MLP, *_DEEPSEEK, *PRE_NORMS), "DeepseekV3ForCausalLM", ignores=ROTARY,
                               cuts=_DEEPSEEK_CUTS, stacks=_DEEPSEEK_STACKS, fused=_DEEPSEEK_FUSED, layer_of=_queries),
}
# fmt: on
