"""Random tiny models of every family, made by transformers, and what they compute.

The first value of every field is the least usual one: the example that hypothesis draws first has
everything on. Letters: B batch, T time, D model width, L layers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from parity_tests.record.huggingface import scatter

BATCH, TIME = 2, 20
PROMPT, NEW = 7, 7  # for generation, which exceeds some of the lengths below
PADDED = 7  # positions of the second row
LENGTHS = (8, 11, 15)  # of windows and of original contexts: less than TIME
POSITIONLESS = ("bloom", "mpt")  # their models take no positions
Draw = Callable[[st.SearchStrategy[Any]], Any]
Settings = dict[str, Any]

one_of = st.sampled_from
ACTIVATIONS = one_of(["gelu", "silu", "gelu_pytorch_tanh", "relu", "relu2", "gelu_new", "tanh"])
EPSILONS = one_of([1e-3, 1e-5, 1e-6])
THETAS = one_of([300.0, 1e4, 5e5])
FLAGS = one_of([True, False])
HEADS = one_of([(4, 2), (6, 2), (4, 4), (3, 1), (2, 1), (6, 3), (1, 1)])  # query heads, key heads
WIDTHS = one_of([8, 6, 4, 12])  # of a head
DEPTHS = one_of([2, 1, 3])
MIXED = one_of([2, 3, 4])  # layers of families whose layers differ
WINDOWS = one_of([3, 5, 2, 16])  # of 1, the cache of transformers keeps all keys


def rope(draw: Draw, kinds: list[str], width: int, fraction: float = 1.0) -> Settings:
    """`rope_parameters` for one kind of layer with heads of this width."""
    pairs = int(width * fraction) // 2
    kinds = [kind for kind in kinds if kind != "dynamic" or pairs > 1]  # it divides by pairs - 1
    kind = draw(one_of(kinds))
    found: Settings = {"rope_type": kind, "rope_theta": draw(THETAS)}
    factor = draw(one_of([4.0, 1.5, 8.0]))
    if kind in ("linear", "dynamic", "llama3", "yarn"):
        found["factor"] = factor
    if kind in ("llama3", "yarn", "longrope"):
        found["original_max_position_embeddings"] = draw(one_of(LENGTHS))
    if kind == "llama3":
        found |= {"low_freq_factor": draw(one_of([1.0, 2.0])), "high_freq_factor": 4.0}
    if kind == "yarn":
        more = {
            "beta_fast": one_of([4.0, 32.0]), "beta_slow": one_of([0.5, 1.0]), "truncate": FLAGS,
            "attention_factor": one_of([1.3, 0.8]),
        }  # fmt: skip
        found |= {name: draw(values) for name, values in more.items() if draw(FLAGS)}
        if draw(FLAGS):
            found |= {
                "mscale": draw(one_of([0.7, 1.0])),
                "mscale_all_dim": draw(one_of([1.2, 1.0])),
            }
    if kind == "longrope":
        for name, values in (("short_factor", [1.3, 1.0, 2.0]), ("long_factor", [9.0, 1.0, 4.0])):
            found[name] = draw(st.lists(one_of(values), min_size=pairs, max_size=pairs))
        if draw(FLAGS):
            found["factor"] = factor
        if draw(FLAGS):
            found["attention_factor"] = draw(one_of([1.2, 0.9]))
    return found


ROPES = ["yarn", "llama3", "longrope", "dynamic", "linear", "default"]


def common(draw: Draw, own_width: bool, depths: st.SearchStrategy[int] = DEPTHS) -> Settings:
    """Sizes and settings of nearly all families; `own_width`: heads times width may not be D."""
    heads, kv = draw(HEADS)
    width = draw(WIDTHS)
    found: Settings = {
        "vocab_size": draw(one_of([37, 64])),
        "num_hidden_layers": draw(depths),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "hidden_size": 12 if own_width else heads * width,
        "intermediate_size": draw(one_of([20, 7, 32])),
        "max_position_embeddings": draw(one_of([*LENGTHS, 64])),
        "rms_norm_eps": draw(EPSILONS),
        "tie_word_embeddings": draw(FLAGS),
    }  # fmt: skip
    if own_width:
        found["hidden_size"] = draw(one_of([24, 12]))
        found["num_attention_heads"] = heads
        found["head_dim"] = width
    return found


def layer_types(draw: Draw, count: int) -> list[str]:
    """A kind for each layer; the first example has both, by turns."""
    kinds = ["sliding_attention", "full_attention"]
    return [kinds[(layer + draw(one_of([0, 1]))) % 2] for layer in range(count)]


def width_of(found: Mapping[str, Any]) -> int:
    """Width of a head."""
    return found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]


def llama(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    found |= {"attention_bias": draw(FLAGS), "mlp_bias": draw(FLAGS)}
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def mistral(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"hidden_act": draw(ACTIVATIONS)}
    found["sliding_window"] = draw(one_of([4, 2, 16, None]))
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def qwen2(draw: Draw) -> Settings:
    found = common(draw, own_width=False, depths=MIXED) | {"hidden_act": draw(ACTIVATIONS)}
    return found | _qwen(draw, found)


def qwen3(draw: Draw) -> Settings:
    found = common(draw, own_width=True, depths=MIXED) | {"hidden_act": draw(ACTIVATIONS)}
    return found | {"attention_bias": draw(FLAGS)} | _qwen(draw, found)


def _qwen(draw: Draw, found: Settings) -> Settings:
    count, slides = found["num_hidden_layers"], draw(FLAGS)
    more = {"use_sliding_window": slides, "sliding_window": draw(WINDOWS)}
    if slides and draw(FLAGS):
        more["layer_types"] = layer_types(draw, count)
    else:
        more["max_window_layers"] = draw(one_of([1, 0, count]))
    return more | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def gemma(draw: Draw) -> Settings:
    found = common(draw, own_width=True) | {"attention_bias": draw(FLAGS)}
    found["hidden_act"] = draw(one_of(["gelu", "gelu_pytorch_tanh", "silu"]))
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def gemma2(draw: Draw) -> Settings:
    found = common(draw, own_width=True, depths=MIXED) | _gemma2(draw)
    found["attn_logit_softcapping"] = draw(one_of([2.0, 50.0, None]))
    if draw(FLAGS):
        found["layer_types"] = layer_types(draw, found["num_hidden_layers"])
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def gemma3_text(draw: Draw) -> Settings:
    found = common(draw, own_width=True, depths=MIXED) | _gemma2(draw)
    if draw(FLAGS):
        found["layer_types"] = layer_types(draw, found["num_hidden_layers"])
    else:
        found["sliding_window_pattern"] = draw(one_of([2, 3, 6]))
    width = width_of(found)
    found["attn_logit_softcapping"] = draw(one_of([2.0, None]))  # its class ignores it
    found["rope_parameters"] = {
        "full_attention": rope(draw, ROPES, width),
        "sliding_attention": rope(draw, ["default", "linear"], width),
    }
    return found


def _gemma2(draw: Draw) -> Settings:
    return {
        "hidden_activation": draw(one_of(["gelu_pytorch_tanh", "gelu", "silu"])),
        "attention_bias": draw(FLAGS),
        "query_pre_attn_scalar": draw(one_of([5, 16, 256])),
        "sliding_window": draw(WINDOWS),
        "final_logit_softcapping": draw(one_of([3.0, 30.0, None])),
    }


def phi3(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    fraction = draw(one_of([0.5, 1.0]))
    width = width_of(found)
    fraction = 1.0 if int(width * fraction) % 2 else fraction
    found["rope_parameters"] = rope(draw, ["longrope", "default"], width, fraction)
    found["rope_parameters"]["partial_rotary_factor"] = fraction
    found["original_max_position_embeddings"] = draw(one_of(LENGTHS))
    found["max_position_embeddings"] = draw(one_of([64, 128]))
    found["sliding_window"] = draw(one_of([6, None, 16]))
    return found


def olmo2(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found["attention_bias"] = draw(FLAGS)
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def smollm3(draw: Draw) -> Settings:
    found = common(draw, own_width=False, depths=MIXED) | {"hidden_act": draw(ACTIVATIONS)}
    count = found["num_hidden_layers"]
    found |= {"attention_bias": draw(FLAGS), "mlp_bias": draw(FLAGS)}
    if draw(FLAGS):
        found["no_rope_layer_interval"] = draw(one_of([2, 3, 4]))
    else:
        found["no_rope_layers"] = draw(st.lists(one_of([0, 1]), min_size=count, max_size=count))
    if draw(FLAGS):
        found |= {"use_sliding_window": True, "sliding_window": draw(WINDOWS)}
        if draw(FLAGS):
            found["layer_types"] = layer_types(draw, count)
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def granite(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found |= {"attention_bias": draw(FLAGS), "mlp_bias": draw(FLAGS)}
    found |= {
        "embedding_multiplier": draw(one_of([12.0, 1.0])),
        "logits_scaling": draw(one_of([8.0, 1.0])),
        "residual_multiplier": draw(one_of([0.22, 1.0])),
        "attention_multiplier": draw(one_of([0.1, 0.5])),
    }
    return found | {"rope_parameters": rope(draw, ROPES, width_of(found))}


def gpt2(draw: Draw) -> Settings:
    heads, width = draw(one_of([4, 3, 1])), draw(one_of([6, 4, 5]))
    return {
        "vocab_size": draw(one_of([37, 64])), "n_embd": heads * width, "n_head": heads,
        "n_layer": draw(DEPTHS), "n_positions": 256,
        "n_inner": draw(one_of([7, None, 32])), "activation_function": draw(ACTIVATIONS),
        "layer_norm_epsilon": draw(EPSILONS), "scale_attn_weights": draw(FLAGS),
        "tie_word_embeddings": draw(FLAGS),
    }  # fmt: skip


def gpt_neox(draw: Draw) -> Settings:
    found = common(draw, own_width=False) | {"hidden_act": draw(ACTIVATIONS)}
    found["layer_norm_eps"] = found.pop("rms_norm_eps")
    del found["num_key_value_heads"]
    width = width_of(found)
    fraction = draw(one_of([0.5, 1.0, 0.25]))
    fraction = 1.0 if int(width * fraction) % 2 or not int(width * fraction) else fraction
    found |= {"use_parallel_residual": draw(FLAGS), "attention_bias": draw(FLAGS)}
    found["rope_parameters"] = rope(draw, ROPES, width, fraction)
    found["rope_parameters"]["partial_rotary_factor"] = fraction
    return found


FAMILIES: Mapping[str, Callable[[Draw], Settings]] = {
    function.__name__: function
    for function in (
        llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi3, olmo2, smollm3, granite,
        gpt2, gpt_neox,
    )
}  # fmt: skip


@st.composite
def settings_of(draw: Draw, family: Callable[[Draw], Settings]) -> Settings:
    """Settings of the family's configuration class."""
    special = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}  # no text ends
    return family(draw) | special


def make_model(kind: str, settings: Settings, seed: int) -> Any:
    """A model with random weights, large enough for faults to show."""
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[kind](**settings)
    eager = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_config(config, **eager).float().eval()
    scatter(model, kind)
    return model


def cases(model: Any, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Name of a case -> inputs of transformers' `forward`."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, model.config.vocab_size, (BATCH, TIME))
    left, right = np.ones((2, BATCH, TIME), np.int64)
    left[1, :PADDED], right[1, -PADDED:] = 0, 0
    counted = np.maximum(np.cumsum(left, axis=1) - 1, 0)
    far = np.broadcast_to(np.arange(200, 200 + TIME), ids.shape)
    packed = np.broadcast_to([*range(4), *range(9), *range(TIME - 13)], ids.shape)
    found = {
        "full": {"input_ids": ids},
        "short": {"input_ids": ids, "position_ids": np.arange(TIME) % 7 + np.zeros_like(ids),
                  "attention_mask": np.ones_like(ids)},
        "left": {"input_ids": ids, "attention_mask": left},
        "left_pos": {"input_ids": ids, "attention_mask": left, "position_ids": counted},
        "right": {"input_ids": ids, "attention_mask": right},
        "offset": {"input_ids": ids, "position_ids": far},
        "packed": {"input_ids": ids, "position_ids": packed},
    }  # fmt: skip
    if model.config.model_type in POSITIONLESS:
        return {name: inputs for name, inputs in found.items() if "position_ids" not in inputs}
    return found


def computed(model: Any, **inputs: Any) -> list[np.ndarray]:
    """Hidden states of the real model, and its logits at the end."""
    forget(model)
    with torch.no_grad():
        given = {name: torch.tensor(value) for name, value in inputs.items()}
        found = model(output_hidden_states=True, use_cache=False, **given)
    return [state.numpy() for state in (*found.hidden_states, found.logits)]


def generated(
    model: Any, ids: np.ndarray, mask: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy tokens [B, count], and how far each one's logit is above the next best [B, count]."""
    forget(model)
    with torch.no_grad():
        found = model.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), max_new_tokens=count,
            do_sample=False, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    logits = torch.stack(found.logits, 1)
    best = logits.topk(2, dim=-1).values
    lead = (best[..., 0] - best[..., 1]) / logits.abs().amax(-1)
    return found.sequences[:, ids.shape[1] :].numpy(), lead.numpy()


def forget(model: Any) -> None:
    """Reset 'dynamic' rotary positions, which depend on the longest call so far; ours do not."""
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
        for name, _ in list(module.named_buffers(recurse=False)):
            if name.endswith("original_inv_freq"):
                original = getattr(module, name)
                setattr(module, name.replace("original_", ""), original.clone())
