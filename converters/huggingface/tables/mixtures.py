# ruff: noqa: E501
"""Mixtures of experts: one tensor per expert, or one for all experts.

If public files have one tensor per expert, stacked tensors as saved by `transformers` 5 are read
too.
"""

from collections.abc import Mapping
from dataclasses import replace

from converters.huggingface.tables.parts import (
    ATTENTION,
    FULL_NORMS,
    HEAD_NORMS,
    MLP,
    PRE_NORMS,
    ROTARY,
    TOP,
)
from converters.huggingface.tables.tensors import Fused, TensorTable
from converters.rules import Rule

# fmt: off
_GATE_UP = "split 1 2 FX; transpose 1 0 2 3"  # [X, 2 FX, D] -> [2, X, FX, D]

_MIXTRAL = (
    # target                        source                                 operation
    Rule("moe/router/kernel",       "block_sparse_moe.gate.weight"),       # [X, D]
    Rule("moe/gate/kernel",         "block_sparse_moe.experts.w1.weight"), # [X, FX, D]
    Rule("moe/down/kernel",         "block_sparse_moe.experts.w2.weight"), # [X, D, FX]
    Rule("moe/up/kernel",           "block_sparse_moe.experts.w3.weight"),
)
_MIXTRAL_STACKS = {
    f"block_sparse_moe.experts.w{number}.weight": f"block_sparse_moe.experts.{{j}}.w{number}.weight" for number in (1, 2, 3)
}
_MIXTRAL_FUSED = {
    "mlp.experts.gate_up_proj": Fused(("block_sparse_moe.experts.w1.weight", "block_sparse_moe.experts.w3.weight"), _GATE_UP),
    "mlp.experts.down_proj":    Fused(("block_sparse_moe.experts.w2.weight",)),
    "mlp.gate.weight":          Fused(("block_sparse_moe.gate.weight",)),
}

_EXPERTS = (
    Rule("moe/router/kernel",             "mlp.gate.weight"),
    Rule("moe/{up|gate|down}/kernel",     "mlp.experts.{up|gate|down}_proj.weight"),
)
_SHARED = (
    Rule("moe/shared/{up|gate|down}/kernel", "mlp.shared_expert.{up|gate|down}_proj.weight"),
    Rule("moe/shared_gate/kernel",        "mlp.shared_expert_gate.weight"),  # [1, D]
)
_STACKS = {f"mlp.experts.{name}_proj.weight": f"mlp.experts.{{j}}.{name}_proj.weight" for name in ("up", "gate", "down")}
_FUSED = {
    "mlp.experts.gate_up_proj": Fused(("mlp.experts.gate_proj.weight", "mlp.experts.up_proj.weight"), _GATE_UP),
    "mlp.experts.down_proj":    Fused(("mlp.experts.down_proj.weight",)),
}

_GRANITE = (
    Rule("moe/router/kernel",             "block_sparse_moe.router.layer.weight"),
    Rule("moe/{up|gate}/kernel",          "block_sparse_moe.{up|gate}.weight"),
    Rule("moe/down/kernel",               "block_sparse_moe.output_linear.weight"),
)
_GRANITE_PARTS = ("block_sparse_moe.gate.weight", "block_sparse_moe.up.weight")
_GRANITE_FUSED = {
    "block_sparse_moe.input_linear.weight":  Fused(_GRANITE_PARTS, _GATE_UP, written=True),
    "block_sparse_moe.experts.gate_up_proj": Fused(_GRANITE_PARTS, _GATE_UP),
    "block_sparse_moe.experts.down_proj":    Fused(("block_sparse_moe.output_linear.weight",)),
    "block_sparse_moe.router.weight":        Fused(("block_sparse_moe.router.layer.weight",)),
}

_QWEN2 = TensorTable("embed_tokens.weight", TOP, (*ATTENTION, *MLP, *_EXPERTS, *_SHARED, *PRE_NORMS), "Qwen2MoeForCausalLM",
                     ignores=ROTARY, stacks=_STACKS, fused=_FUSED)

TABLES: Mapping[str, TensorTable] = {
    "mixtral":    replace(_QWEN2, architecture="MixtralForCausalLM", layer=(*ATTENTION, *_MIXTRAL, *PRE_NORMS), stacks=_MIXTRAL_STACKS, fused=_MIXTRAL_FUSED),
    "qwen2_moe":  _QWEN2,
    "qwen3_moe":  replace(_QWEN2, architecture="Qwen3MoeForCausalLM", layer=(*ATTENTION, *HEAD_NORMS, *MLP, *_EXPERTS, *PRE_NORMS)),
    "olmoe":      replace(_QWEN2, architecture="OlmoeForCausalLM", layer=(*ATTENTION, *FULL_NORMS, *_EXPERTS, *PRE_NORMS)),
    "granitemoe": replace(_QWEN2, architecture="GraniteMoeForCausalLM", layer=(*ATTENTION, *_GRANITE, *PRE_NORMS), stacks={}, fused=_GRANITE_FUSED),
}
# fmt: on
