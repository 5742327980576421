"""Random settings of the later families; `live_models` has those of the first ones."""

from collections.abc import Callable, Mapping

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
    width_of,
)


def fraction(draw: Draw, width: int) -> float:
    """A rotary fraction of a head, with an even number of rotated dimensions."""
    share = draw(one_of([0.5, 1.0, 0.25]))
    turned = int(width * share)
    return 1.0 if turned % 2 or not turned else share


def partial(draw: Draw, found: Settings) -> Settings:
    share = fraction(draw, width_of(found))
    settings = rope(draw, ROPES, width_of(found), share)
    return {"rope_parameters": {**settings, "partial_rotary_factor": share}}


def layer_norm(draw: Draw, own_width: bool, name: str = "layer_norm_eps") -> Settings:
    found = common(draw, own_width) | {"hidden_act": draw(ACTIVATIONS)}
    found[name] = found.pop("rms_norm_eps")
    return found


def olmo3(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found |= {"attention_bias": draw(FLAGS), "sliding_window": draw(WINDOWS)}
    if draw(FLAGS):
        found["layer_types"] = layer_types(draw, found["num_hidden_layers"])
    width = width_of(found)
    found["rope_parameters"] = {
        "full_attention": rope(draw, ROPES, width),
        "sliding_attention": rope(draw, ["default", "linear"], width),
    }
    return found


def starcoder2(draw: Draw) -> Settings:
    found = layer_norm(draw, True, "norm_epsilon") | {"use_bias": draw(FLAGS)}
    found["sliding_window"] = draw(one_of([4, 2, 16, None]))
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def glm(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    found["attention_bias"] = draw(FLAGS)
    return found | partial(draw, found)


def glm4(draw: Draw) -> Settings:
    return glm(draw)


def phi(draw: Draw) -> Settings:
    found = layer_norm(draw, own_width=False) | {"qk_layernorm": draw(FLAGS)}
    return found | partial(draw, found)


def opt(draw: Draw) -> Settings:
    heads, width = draw(one_of([4, 3, 1])), draw(one_of([6, 4, 5]))
    return {
        "vocab_size": draw(one_of([37, 64])), "hidden_size": heads * width,
        "num_attention_heads": heads, "num_hidden_layers": draw(DEPTHS),
        "ffn_dim": draw(one_of([7, 32])), "max_position_embeddings": 256,
        "do_layer_norm_before": draw(FLAGS), "_remove_final_layer_norm": draw(FLAGS),
        "word_embed_proj_dim": draw(one_of([10, None])), "enable_bias": draw(FLAGS),
        "layer_norm_elementwise_affine": draw(one_of([False, True])),
        "activation_function": draw(ACTIVATIONS), "tie_word_embeddings": draw(FLAGS),
    }  # fmt: skip


def falcon(draw: Draw) -> Settings:
    heads, kv = draw(one_of([(4, 2), (6, 2), (4, 4), (3, 1)]))
    width, form = draw(one_of([8, 6, 4])), draw(one_of(["new", "one", "all"]))
    parallel = form == "new" or draw(FLAGS)
    found: Settings = {
        "vocab_size": draw(one_of([37, 64])), "hidden_size": heads * width,
        "num_attention_heads": heads, "num_hidden_layers": draw(DEPTHS),
        "new_decoder_architecture": form == "new", "multi_query": form == "one",
        "num_kv_heads": kv if form == "new" else None, "parallel_attn": parallel,
        "bias": draw(FLAGS), "ffn_hidden_size": draw(one_of([20, None])),
        "layer_norm_epsilon": draw(EPSILONS), "activation": draw(one_of(["gelu", "relu"])),
        "tie_word_embeddings": draw(FLAGS), "max_position_embeddings": draw(one_of([11, 64])),
        "num_ln_in_parallel_attn": draw(one_of([1, None, 2])) if form == "new" else None,
    }  # fmt: skip
    return found | {"rope_parameters": rope(draw, ROPES, width)}


def cohere(draw: Draw) -> Settings:
    found = layer_norm(draw, own_width=False) | {"logit_scale": draw(one_of([0.3, 0.0625]))}
    found |= {"attention_bias": draw(FLAGS), "use_qk_norm": draw(FLAGS)}
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def cohere2(draw: Draw) -> Settings:
    found = layer_norm(draw, own_width=False) | {"logit_scale": draw(one_of([0.3, 0.0625]))}
    found |= {"attention_bias": draw(FLAGS), "sliding_window": draw(WINDOWS)}
    if draw(FLAGS):
        found["layer_types"] = layer_types(draw, found["num_hidden_layers"])
    else:
        found["sliding_window_pattern"] = draw(one_of([2, 3, 4]))
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def gptj(draw: Draw) -> Settings:
    heads, width = draw(one_of([4, 8])), draw(one_of([6, 4, 8]))
    return {
        "vocab_size": draw(one_of([37, 64])), "n_embd": heads * width, "n_head": heads,
        "n_layer": draw(DEPTHS), "n_positions": 256,
        "n_inner": draw(one_of([7, None, 32])), "activation_function": draw(ACTIVATIONS),
        "layer_norm_epsilon": draw(EPSILONS), "rotary_dim": draw(one_of([2, 4])),
        "tie_word_embeddings": draw(FLAGS),
    }  # fmt: skip


def codegen(draw: Draw) -> Settings:
    return gptj(draw)


def gpt_bigcode(draw: Draw) -> Settings:
    found = gptj(draw) | {"multi_query": draw(one_of([False, True]))}
    found["scale_attn_weights"] = draw(one_of([False, True]))
    del found["rotary_dim"]
    return found


def stablelm(draw: Draw) -> Settings:
    found = layer_norm(draw, own_width=False)
    names = ("use_parallel_residual", "qk_layernorm", "use_qkv_bias")
    found |= {name: draw(FLAGS) for name in names}
    return found | partial(draw, found)


def nemotron(draw: Draw) -> Settings:
    found = layer_norm(draw, True, "norm_eps")
    found |= {"attention_bias": draw(FLAGS), "mlp_bias": draw(FLAGS)}
    return found | partial(draw, found)


def olmo(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    del found["rms_norm_eps"]
    found |= {"attention_bias": draw(FLAGS), "clip_qkv": draw(one_of([0.7, None, 2.0]))}
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def exaone4(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    count = found["num_hidden_layers"]
    found["sliding_window"] = draw(one_of([5, 2, None]))
    if found["sliding_window"] is None:
        found["layer_types"] = ["full_attention"] * count
    elif draw(FLAGS):
        found["layer_types"] = layer_types(draw, count)
    else:
        found["sliding_window_pattern"] = draw(one_of([2, 3, 4]))
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def seed_oss(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    names = ("attention_bias", "attention_out_bias", "mlp_bias")
    found |= {name: draw(FLAGS) for name in names}
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def arcee(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found |= {"attention_bias": draw(FLAGS), "mlp_bias": draw(FLAGS)}
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def ministral(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    found["sliding_window"] = draw(WINDOWS)
    if found["sliding_window"] is not None and draw(FLAGS):
        found["layer_types"] = layer_types(draw, found["num_hidden_layers"])
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def ministral3(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    found["sliding_window"] = draw(one_of([None, 4]))
    settings = rope(draw, ROPES, width_of(found))
    settings.setdefault("original_max_position_embeddings", 8)
    settings["llama_4_scaling_beta"] = draw(one_of([0.5, 0.1]))
    return found | {"rope_parameters": settings}


DENSE: Mapping[str, Callable[[Draw], Settings]] = {
    function.__name__: function
    for function in (
        olmo3, starcoder2, glm, glm4, phi, opt, falcon, cohere, cohere2, gptj, codegen,
        gpt_bigcode, stablelm, nemotron, olmo, exaone4, seed_oss, arcee, ministral, ministral3,
    )
}  # fmt: skip
