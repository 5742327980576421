"""Random settings of the families with experts, of ALiBi's and of latent attention.

See `live_models`: the first value of every field is the least usual one.
"""

from collections.abc import Callable, Mapping

from hypothesis import strategies as st

from tests.converters.huggingface.live_models import (
    ACTIVATIONS,
    DEPTHS,
    EPSILONS,
    FLAGS,
    ROPES,
    WINDOWS,
    Draw,
    Settings,
    common,
    layer_types,
    one_of,
    rope,
)


def _experts(draw: Draw, count_key: str, hidden_key: str) -> Settings:
    count = draw(one_of([5, 4, 8]))
    return {
        count_key: count,
        "num_experts_per_tok": draw(one_of([3, 2, 1])),
        hidden_key: draw(one_of([6, 9])),
    }


def _rope(draw: Draw, found: Settings) -> Settings:
    width = found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
    return {"rope_parameters": rope(draw, ROPES, width)}


def mixtral(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    found |= _experts(draw, "num_local_experts", "intermediate_size")
    found["sliding_window"] = draw(one_of([4, 2, None]))
    return found | _rope(draw, found)


def qwen2_moe(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found |= _experts(draw, "num_experts", "moe_intermediate_size") | _dense(draw, found)
    found |= {
        "shared_expert_intermediate_size": draw(one_of([7, 12])),
        "qkv_bias": draw(one_of([False, True])),
        "use_sliding_window": (slides := draw(FLAGS)),
        "sliding_window": draw(WINDOWS),
    }
    if slides and draw(FLAGS):
        found["layer_types"] = layer_types(draw, found["num_hidden_layers"])
    else:
        found["max_window_layers"] = draw(one_of([2, 0, 28]))
    return found | _rope(draw, found)


def qwen3_moe(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    found |= _experts(draw, "num_experts", "moe_intermediate_size") | _dense(draw, found)
    found |= {
        "attention_bias": draw(FLAGS),
        "use_sliding_window": draw(FLAGS),
        "sliding_window": draw(WINDOWS),
    }
    return found | _rope(draw, found)


def _dense(draw: Draw, found: Settings) -> Settings:
    """Which layers have experts, and whether weights are renormalised."""
    layers = st.lists(st.integers(0, found["num_hidden_layers"] - 1), max_size=2, unique=True)
    return {
        "norm_topk_prob": draw(FLAGS),
        "decoder_sparse_step": draw(one_of([2, 1])),
        "mlp_only_layers": draw(layers),
    }


def olmoe(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found |= _experts(draw, "num_experts", "intermediate_size")
    found |= {
        "attention_bias": draw(FLAGS),
        "clip_qkv": draw(one_of([0.7, None, 2.0])),
        "norm_topk_prob": draw(FLAGS),
    }
    return found | _rope(draw, found)


def granitemoe(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found |= _experts(draw, "num_local_experts", "intermediate_size")
    found |= {
        "attention_bias": draw(FLAGS),
        "embedding_multiplier": draw(one_of([12.0, 1.0])),
        "logits_scaling": draw(one_of([8.0, 1.0])),
        "residual_multiplier": draw(one_of([0.22, 1.0])),
        "attention_multiplier": draw(one_of([0.1, 0.5])),
    }
    return found | _rope(draw, found)


def gpt_oss(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"attention_bias": draw(FLAGS)}
    found |= _experts(draw, "num_local_experts", "intermediate_size")
    found |= {
        "swiglu_limit": draw(one_of([0.8, 7.0])),
        "swiglu_alpha": draw(one_of([1.0, 1.702])),
        "sliding_window": draw(WINDOWS),
    }
    if draw(FLAGS):
        found["layer_types"] = layer_types(draw, found["num_hidden_layers"])
    return found | _rope(draw, found)


def deepseek_v3(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found["num_key_value_heads"] = found["num_attention_heads"]
    groups, size = draw(one_of([(3, 2), (2, 3), (1, 4)]))
    chosen = draw(st.integers(1, groups))
    found |= {
        "kv_lora_rank": 8, "q_lora_rank": draw(one_of([None, 6])),
        "qk_rope_head_dim": (turned := draw(one_of([4, 6]))),
        "qk_nope_head_dim": draw(one_of([4, 3])), "v_head_dim": draw(one_of([6, 4])),
        "n_routed_experts": groups * size, "n_group": groups, "topk_group": chosen,
        "num_experts_per_tok": draw(st.integers(1, chosen * size)),
        "n_shared_experts": draw(one_of([2, 1])), "moe_intermediate_size": draw(one_of([6, 9])),
        "first_k_dense_replace": draw(one_of([1, 0])),
        "norm_topk_prob": draw(FLAGS), "routed_scaling_factor": draw(one_of([2.5, 1.0])),
        "rope_interleave": draw(FLAGS), "attention_bias": draw(FLAGS),
        "rope_parameters": rope(draw, ROPES, turned),
    }  # fmt: skip
    return found


def bloom(draw: Draw) -> Settings:
    heads = draw(one_of([6, 4, 3, 1]))
    return {
        "vocab_size": 41, "hidden_size": heads * draw(one_of([4, 6])), "n_head": heads,
        "n_layer": draw(DEPTHS), "layer_norm_epsilon": draw(EPSILONS),
        "apply_residual_connection_post_layernorm": draw(FLAGS), "tie_word_embeddings": draw(FLAGS),
    }  # fmt: skip


def mpt(draw: Draw) -> Settings:
    heads = draw(one_of([6, 4, 3, 1]))
    attention = {
        "clip_qkv": draw(one_of([0.6, None, 2.0])), "softmax_scale": draw(one_of([0.7, None])),
        "alibi_bias_max": draw(one_of([16, 8])), "alibi": draw(one_of([True, False])),
    }  # fmt: skip
    return {
        "vocab_size": 41, "d_model": heads * draw(one_of([4, 6])), "n_heads": heads,
        "n_layers": draw(DEPTHS), "layer_norm_epsilon": draw(EPSILONS),
        "expansion_ratio": draw(one_of([2, 4])), "attn_config": attention,
        "tie_word_embeddings": draw(FLAGS), "max_seq_len": 64,
    }  # fmt: skip


MIXTURES: Mapping[str, Callable[[Draw], Settings]] = {
    function.__name__: function
    for function in (
        mixtral,
        qwen2_moe,
        qwen3_moe,
        olmoe,
        granitemoe,
        bloom,
        mpt,
        gpt_oss,
        deepseek_v3,
    )
}
