"""Settings of published models, by kind of model: as in their dumps, without sizes.

Every setting in a dump is listed, so that each kind describes a whole model. Keys are those of
`BackboneConfig`; values that Praxis spells differently are translated to ours.
"""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]

NO_DROPOUT: Settings = {
    "input_dropout": 0.0, "attention_dropout": 0.0, "residual_dropout": 0.0, "mlp_dropout": 0.0,
}  # fmt: skip
PLAIN_LOSS: Settings = {
    "label_smoothing": 0.0, "label_smoothing_in_eval": True, "z_loss_weight": 0.0,
    "loss_average": "weights",
}  # fmt: skip
PLAIN: Settings = {
    **NO_DROPOUT, **PLAIN_LOSS, "attention_mask": "causal", "norm_policy": "pre",
    "attention_residual_weight": 1.0, "mlp_residual_weight": 1.0, "parallel_residual": False,
    "relative_bias": None, "qk_norm": "none", "sliding_window": None, "moe": None,
    "scale_before_logits": False, "final_norm": True, "attention_extra_logit": None,
    "relative_key_dims": None, "mlp_padding_first": False,
}  # fmt: skip
SINUSOIDS: Settings = {
    "position_embedding": "sinusoidal", "position_min_timescale": 1,
    "position_max_timescale": 10_000,
}  # fmt: skip


def without(settings: Settings, *keys: str) -> Settings:
    """The settings without some keys."""
    return {key: value for key, value in settings.items() if key not in keys}


def learned(positions: int) -> Settings:
    """Settings for a learned vector per position, in place of sinusoids."""
    return {"position_embedding": "learned", "max_positions": positions}


LAYER_NORM: Settings = {
    "norm": "layer_norm", "norm_bias": True, "norm_scale_plus_one": True, "norm_epsilon": 1e-6,
}  # fmt: skip
RMS_NORM: Settings = {
    "norm": "rms_norm", "norm_bias": False, "norm_scale_plus_one": False, "norm_epsilon": 1e-6,
}  # fmt: skip
TIED: Settings = {
    "tied_embeddings": True, "embedding_scale": "sqrt_dim", "lm_head_bias": True,
    "final_logit_cap": 30.0,
}  # fmt: skip
# paxml.tasks.lm.model_params.TransformerLmSpmdAdafactor, whose ACTIVATION_CLS is ReLU; the
# experiments on C4 set GELU.
_GPT: Settings = {
    **PLAIN, **LAYER_NORM, **TIED, "rotary": None, "fused_qkv": True, "qkv_bias": False,
    "attention_out_bias": False, "query_scaling": "per_dim_scale", "attention_logit_cap": 50.0,
    "gated_mlp": False, "mlp_bias": True, "activation": "gelu_tanh", "dtype": "bfloat16",
}  # fmt: skip
GPT: Settings = {**_GPT, **SINUSOIDS}
GPT_FLOAT32: Settings = {**GPT, "dtype": "float32"}
GPT_PMAP: Settings = {  # TransformerLmPmapAdam
    **GPT, "activation": "relu", "fused_qkv": False, "final_logit_cap": None, "dtype": "float32",
}  # fmt: skip
GPT_LEARNED: Settings = {**_GPT, **learned(2048)}
BERT: Settings = {**GPT, "activation": "relu", "attention_mask": "bidirectional"}
BERT_SMOOTHED: Settings = {**BERT, "label_smoothing": 0.1}  # `BertModel.label_smoothing_prob`
BERT_PMAP: Settings = {**BERT, "fused_qkv": False}
GPT3: Settings = {  # c4.configure_gpt3_task
    **_GPT, **learned(16_384), "norm_epsilon": 1e-5, "embedding_scale": "none",
    "lm_head_bias": False, "final_logit_cap": None, "attention_logit_cap": None,
    "query_scaling": "inverse_sqrt_head_dim", "qkv_bias": True, "attention_out_bias": True,
    "dtype": "float32",
}  # fmt: skip
GPT3_BFLOAT16: Settings = {**GPT3, "dtype": "bfloat16"}
ROTARY: Settings = {
    "position_embedding": "none", "rotary.min_timescale": 1, "rotary.max_timescale": 10_000,
    "rotary.fraction": 1.0,
}  # fmt: skip
LLAMA2_OF_NVIDIA: Settings = {  # the head, the biases and the scales of NVIDIA1_3B
    **without(_GPT, "rotary"), **RMS_NORM, **ROTARY, "rotary.pairing": "half_split",
    "fused_qkv": False,
    "qkv_bias": True, "attention_out_bias": True, "query_scaling": "inverse_sqrt_head_dim",
    "attention_logit_cap": None, "gated_mlp": True, "activation": "silu",
}  # fmt: skip
MOE: Settings = {
    "moe.gated": False, "moe.gating": "top2", "moe.gating_level": "token",
    "moe.gating_logit_cap": 0.0, "moe.capacity_factor": 2.0, "moe.expert_capacity": 0,
    "moe.min_group_size": None, "moe.second_expert_policy": "all", "moe.padding_first": False,
    "moe.residual_weight": 1.0,
}  # fmt: skip
MOE_OF_NVIDIA: Settings = {
    **without(GPT_LEARNED, "moe"), **MOE,
    "moe.num_experts": 16, "moe.hidden_dims": 16_384, "moe.activation": "gelu_tanh",
    "moe.num_groups": 16, "moe.load_balance_loss_weight": 1.0,
}  # fmt: skip
GLAM: Settings = {  # praxis.layers.glam.GlamUniTransformerLmHParams, by GLaM64B64EProxy
    **without(PLAIN, "moe", "relative_bias"), **RMS_NORM, **MOE, "rotary": None,
    "position_embedding": "none", "z_loss_weight": 1e-4, "label_smoothing_in_eval": False,
    "loss_average": "positions", "scale_before_logits": True, "logits_clip": None,
    "lm_head_bias": False, "attention_extra_logit": 0.0, "mlp_padding_first": True,
    "moe.expert_capacity": 1,
    "fused_qkv": False, "qkv_bias": False, "attention_out_bias": False, "query_scaling": "none",
    "attention_logit_cap": None, "final_logit_cap": None, "gated_mlp": True, "mlp_bias": False,
    "activation": "gelu_tanh", "tied_embeddings": True, "embedding_scale": "none",
    "dtype": "bfloat16",
    "relative_bias.num_buckets": 32, "relative_bias.max_distance": 128,
    "relative_bias.bidirectional": False, "relative_bias.use_length_as_position": True,
    "moe.num_experts": 64, "moe.hidden_dims": 32_768, "moe.activation": "relu",
    "moe.num_groups": 128, "moe.load_balance_loss_weight": 0.01,
}  # fmt: skip

# saxml. Its serving classes compute in bfloat16; here the user chooses the dtype of computation.
_SERVED: Settings = {**PLAIN, "attention_logit_cap": None, "final_logit_cap": None}
LLAMA: Settings = {  # lm_cloud.BaseLLaMA
    **_SERVED, **RMS_NORM, **ROTARY, "norm_epsilon": 1e-5, "rotary.pairing": "interleaved",
    "fused_qkv": True, "qkv_bias": False, "attention_out_bias": False,
    "query_scaling": "inverse_sqrt_head_dim", "gated_mlp": True, "mlp_bias": False,
    "activation": "silu", "tied_embeddings": False, "embedding_scale": "none",
    "lm_head_bias": False,
}  # fmt: skip
LLAMA_GROUPED: Settings = {**LLAMA, "fused_qkv": False, "multi_query": False}
LLAMA3: Settings = {**LLAMA_GROUPED, "rotary.max_timescale": 500_000}
# Weights in HuggingFace's order, with rotary pairs of halves; no file gives the epsilon.
LLAMA_HUGGINGFACE: Settings = {**without(LLAMA, "norm_epsilon"), "rotary.pairing": "half_split"}
GPTJ: Settings = {  # gptj.GPTJ; GPTJRotaryEmbedding rotates the first `rotary_dim` of each head
    **_SERVED, **LAYER_NORM, **without(ROTARY, "rotary.fraction"), "norm_epsilon": 1e-5,
    "norm_scale_plus_one": False, "rotary.pairing": "interleaved", "rotary.by_frequency": True,
    "parallel_residual": True, "shared_norm": True, "mlp_adds_input": False, "fused_qkv": True,
    "qkv_bias": False, "attention_out_bias": False, "query_scaling": "inverse_sqrt_head_dim",
    "gated_mlp": False, "mlp_bias": True, "activation": "gelu_tanh", "tied_embeddings": False,
    "embedding_scale": "none", "lm_head_bias": True,
}  # fmt: skip
GEMMA_7B: Settings = {  # transformer_models.gemma
    **_SERVED, **RMS_NORM, **ROTARY, "norm_scale_plus_one": True, "rotary.pairing": "half_split",
    "fused_qkv": True, "qkv_bias": False, "attention_out_bias": False,
    "query_scaling": "inverse_sqrt_head_dim", "gated_mlp": True, "mlp_bias": False,
    "activation": "gelu_tanh", "tied_embeddings": True, "embedding_scale": "sqrt_dim",
    "lm_head_bias": False,
}  # fmt: skip
GEMMA_2B: Settings = {**GEMMA_7B, "fused_qkv": False, "multi_query": True}
