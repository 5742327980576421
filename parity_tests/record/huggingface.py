"""Records tiny HuggingFace language models: python huggingface.py OUT [NAME ...].

Needs `torch==2.13.0` and `transformers` 5 (eager attention, float32), and nothing of this project.
Writes one folder per family: `config.json`, safetensors, and `reference.npz`. The latter has
`input_ids` [B, T] and these cases:

    full      no other inputs
    left      `attention_mask` with padding on the left, positions from 0 over the whole row
    left_pos  the same with `position_ids` that count tokens
    offset    `position_ids` from 200 on
    packed    `position_ids` that restart twice, without a mask; not for models whose masks
              ignore positions
    inject    `inputs_embeds`: words where `item_mask` is False; `labels`; `loss`: mean cross
              entropy of each position's label (not shifted); `grad_inputs_embeds`

Each case has `<case>/logits` [B, T, V]. `full` also has `hidden_states` [L + 1, B, T, D], of which
the last is normed, unless their widths differ; older recordings have them for every case.
`left/generate` is `left/input_ids` followed by greedy ids, none of which ends the text. Models
without positions lack the cases that set positions. Bidirectional models have neither `packed`
(tokens would see those of other texts) nor `left/generate`.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

BATCH, TIME, NEW = 2, 16, 6
COMMON = {
    "vocab_size": 41, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 24,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.2], "long_factor": [1.5, 3.0],
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
OLMO3_ROPE = {
    "full_attention": {**YARN, "rope_theta": 5e5},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
}
WINDOWS = ["sliding_attention", "full_attention"]
MODELS = {
    # name: (model type, settings); the thresholds of all scalings and windows are below TIME tokens
    "llama": ("llama", {"head_dim": 8, "rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}),
    "llama_tied": ("llama", {"rope_parameters": YARN, "tie_word_embeddings": True}),
    "mistral": ("mistral", {"head_dim": 8, "sliding_window": 5}),
    "qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "gemma": ("gemma", {"head_dim": 8, "num_key_value_heads": 1}),
    "gemma2": ("gemma2", {"head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 24,
                          "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    "gemma3_text": ("gemma3_text", {"head_dim": 8, "num_hidden_layers": 3, "sliding_window": 5,
                                    "query_pre_attn_scalar": 24, "rope_parameters": GEMMA3_ROPE,
                                    "layer_types": ["sliding_attention", "full_attention",
                                                    "sliding_attention"]}),
    "phi3": ("phi3", {"sliding_window": 6, "original_max_position_embeddings": 8,
                      "rope_parameters": LONGROPE}),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "granite": ("granite", {"embedding_multiplier": 12.0, "logits_scaling": 8.0,
                            "residual_multiplier": 0.22, "attention_multiplier": 0.1,
                            "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gpt_neox", {"num_attention_heads": 2}),
    "olmo3": ("olmo3", {"sliding_window": 5, "layer_types": WINDOWS, "rope_parameters": OLMO3_ROPE}),
    "starcoder2": ("starcoder2", {"sliding_window": 5}),
    "glm": ("glm", {"head_dim": 8}),
    "glm4": ("glm4", {"head_dim": 4, "attention_bias": False}),
    "phi": ("phi", {"qk_layernorm": True}),
    "opt": ("opt", {"ffn_dim": 24, "do_layer_norm_before": False, "max_position_embeddings": 220}),
    "opt_narrow": ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 8, "max_position_embeddings": 220}),
    "falcon": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True,
                          "ffn_hidden_size": 24}),
    "falcon_multi_query": ("falcon", {"ffn_hidden_size": 24}),
    "falcon_in_a_row": ("falcon", {"ffn_hidden_size": 24, "multi_query": False, "parallel_attn": False}),
    "cohere": ("cohere", {"use_qk_norm": True, "logit_scale": 0.3}),
    "cohere2": ("cohere2", {"sliding_window": 5, "layer_types": WINDOWS, "attention_bias": True}),
    "gptj": ("gptj", {"rotary_dim": 2, "n_inner": 24}),
    "codegen": ("codegen", {"rotary_dim": 2, "n_inner": 24}),
    "gpt_bigcode": ("gpt_bigcode", {"n_inner": 24}),
    "stablelm": ("stablelm", {"head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1,
                              "qk_layernorm": True, "use_parallel_residual": True}),
    "nemotron": ("nemotron", {"head_dim": 8, "mlp_bias": True}),
    "olmo": ("olmo", {"clip_qkv": 0.7}),
    "exaone4": ("exaone4", {"sliding_window": 5, "layer_types": WINDOWS}),
    "seed_oss": ("seed_oss", {"head_dim": 8, "attention_out_bias": True}),
    "arcee": ("arcee", {"head_dim": 8, "mlp_bias": True}),
    "ministral": ("ministral", {"head_dim": 8, "sliding_window": 5, "layer_types": WINDOWS}),
    "ministral3": ("ministral3", {"head_dim": 8, "rope_parameters": {**YARN, "llama_4_scaling_beta": 0.5}}),
    "mixtral": ("mixtral", {"intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2,
                            "sliding_window": 6}),
    "qwen2_moe": ("qwen2_moe", {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 6,
                                "shared_expert_intermediate_size": 10, "mlp_only_layers": [0]}),
    "qwen3_moe": ("qwen3_moe", {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
                                "moe_intermediate_size": 6, "norm_topk_prob": True,
                                "decoder_sparse_step": 2}),
    "olmoe": ("olmoe", {"intermediate_size": 6, "num_experts": 4, "num_experts_per_tok": 2, "clip_qkv": 1.0}),
    "granitemoe": ("granitemoe", {"intermediate_size": 6, "num_local_experts": 4, "num_experts_per_tok": 2,
                                  "embedding_multiplier": 12.0, "logits_scaling": 8.0,
                                  "residual_multiplier": 0.22, "attention_multiplier": 0.1}),
    "gpt_oss": ("gpt_oss", {"head_dim": 6, "intermediate_size": 8, "num_local_experts": 4,
                            "num_experts_per_tok": 2, "sliding_window": 5, "swiglu_limit": 1.0,
                            "rope_parameters": {**YARN, "truncate": False}}),
    "deepseek_v3": ("deepseek_v3", {"kv_lora_rank": 8, "q_lora_rank": 6, "qk_rope_head_dim": 4,
                                    "qk_nope_head_dim": 4, "v_head_dim": 6, "num_key_value_heads": 4,
                                    "n_routed_experts": 6, "num_experts_per_tok": 3, "n_group": 3, "topk_group": 2,
                                    "moe_intermediate_size": 6, "first_k_dense_replace": 1, "attention_bias": True,
                                    "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.7}}),
    "bloom": ("bloom", {"num_attention_heads": 3, "hidden_size": 18,
                        "apply_residual_connection_post_layernorm": True}),
    "mpt": ("mpt", {"num_attention_heads": 3, "hidden_size": 18,
                    "attn_config": {"clip_qkv": 1.0, "softmax_scale": 0.5, "alibi_bias_max": 16}}),
    # Bidirectional models; scores divided by the number of the layer.
    "qwen2_both_ways": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1,
                                  "is_causal": False}),
    "gemma3_text_both_ways": ("gemma3_text", {"head_dim": 8, "sliding_window": 6,
                                              "sliding_window_pattern": 2, "rope_parameters": GEMMA3_ROPE,
                                              "use_bidirectional_attention": True}),
    "gpt2_by_layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
}
GPT2_LIKE = ("gpt2", "gptj", "codegen", "gpt_bigcode")
WITHOUT_PACKED = ("opt", "falcon", "gpt_oss")
POSITIONLESS = ("bloom", "mpt")  # these models take no positions
GPT2 = {"vocab_size": 41, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 256, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0}
BF16_SHARDED = ("qwen3",)  # stored in bfloat16 in several files, but computed in float32


def main(out, names):
    for number, (name, (kind, settings)) in enumerate(MODELS.items()):
        if names and name not in names:
            continue
        torch.manual_seed(number)
        made = CONFIG_MAPPING[kind]
        common = GPT2 if kind in GPT2_LIKE else {k: v for k, v in COMMON.items() if hasattr(made(), k)}
        config = made(**{**common, **settings})
        eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
        model = AutoModelForCausalLM.from_config(config, **eager).float().eval()
        scatter(model, kind)
        if name in BF16_SHARDED:
            model.bfloat16().save_pretrained(out / name, max_shard_size="6KB")
            # Reload: `.bfloat16()` has rounded the rotary frequencies too, which are not in any
            # file.
            model = AutoModelForCausalLM.from_pretrained(
                out / name, dtype=torch.float32, attn_implementation="eager"
            ).eval()
        else:
            model.save_pretrained(out / name)
        (out / name / "generation_config.json").unlink(missing_ok=True)
        np.savez_compressed(out / name / "reference.npz", **reference(model))


def scatter(model, kind):
    """Make weights so large that faults show."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn_like(value)
            if value.ndim == 1:
                scale = name.endswith("weight") and not kind.startswith("gemma")
                value.copy_(0.3 * noise + scale)
            elif "embed" in name or "wte" in name or "wpe" in name:
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise * value.shape[1] ** -0.5)
        for name, value in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                value.copy_(0.3 * torch.randn_like(value))


def reference(model):
    ids = torch.randint(3, 41, (BATCH, TIME))
    mask = torch.ones(BATCH, TIME, dtype=torch.long)
    mask[1, :5] = 0
    counted = (mask.cumsum(-1) - 1).clamp(min=0)
    offset = torch.arange(200, 200 + TIME).expand(BATCH, TIME)
    packed = torch.cat([torch.arange(5), torch.arange(7), torch.arange(TIME - 12)]).expand(BATCH, TIME)
    found = {"input_ids": ids, "left/input_ids": ids, "left/attention_mask": mask,
             "left_pos/position_ids": counted, "offset/position_ids": offset,
             "packed/position_ids": packed}

    def run(case, **inputs):
        result = model(output_hidden_states=True, use_cache=False, **inputs)
        found[f"{case}/logits"] = result.logits
        if case == "full" and len({state.shape for state in result.hidden_states}) == 1:
            found[f"{case}/hidden_states"] = torch.stack(result.hidden_states)
        return result.logits

    settings = model.config
    both_ways = not getattr(settings, "is_causal", True) or getattr(
        settings, "use_bidirectional_attention", False
    )
    with torch.no_grad():
        run("full", input_ids=ids)
        run("left", input_ids=ids, attention_mask=mask)
        if model.config.model_type not in POSITIONLESS:
            run("left_pos", input_ids=ids, attention_mask=mask, position_ids=counted)
            run("offset", input_ids=ids, position_ids=offset)
        if both_ways or model.config.model_type in (*WITHOUT_PACKED, *POSITIONLESS):
            del found["packed/position_ids"]
        else:
            run("packed", input_ids=ids, position_ids=packed)
        if not both_ways:
            model.generation_config.eos_token_id = None  # so that no row ends early
            found["left/generate"] = model.generate(
                ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False
            )
        items = torch.rand(BATCH, TIME) < 0.4
        words = torch.nn.functional.embedding(ids, model.get_input_embeddings().weight)
        embeds = torch.where(items[..., None], torch.randn_like(words), words)
    embeds.requires_grad_()
    labels = torch.randint(3, 41, (BATCH, TIME))
    logits = run("inject", inputs_embeds=embeds)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    loss.backward()
    found |= {"inject/inputs_embeds": embeds, "inject/item_mask": items, "inject/labels": labels,
              "inject/loss": loss, "inject/grad_inputs_embeds": embeds.grad}
    return {name: value.detach().numpy() for name, value in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
