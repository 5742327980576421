"""What several keys of a `config.json` give together, as their classes compute it."""

from typing import Any

import pytest

from efficientids_flax.backbone.presets.families.parts import fraction_of, inverse_of
from efficientids_flax.backbone.presets.read import UnsupportedConfigError, config_of
from efficientids_flax.config import NormConfig, NormPlacesConfig, PositionScalingConfig

SIZES = {
    "vocab_size": 41, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
NEW = {"new_decoder_architecture": True}
SLIDING = ["sliding_attention", "full_attention"] * 2
BETA = {"llama_4_scaling_beta": 0.5}

READ: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # what: model type, keys, fields
    "new Falcon": ("falcon", NEW | {"num_kv_heads": 2},
                   {"num_kv_heads": 2, "parallel_residual": True, "shared_norm": False}),
    "one norm": ("falcon", NEW | {"num_ln_in_parallel_attn": 1},
                 {"num_kv_heads": 4, "parallel_residual": True, "shared_norm": True}),
    "old Falcon": ("falcon", {"num_kv_heads": 2},  # which it does not read then
                   {"num_kv_heads": 1, "parallel_residual": True, "shared_norm": True}),
    "null is false": ("falcon", {"multi_query": None, "parallel_attn": None, "bias": None},
                      {"num_kv_heads": 4, "parallel_residual": False, "qkv_bias": False}),
    "old name of a width": ("falcon", {"n_embed": 48},
                            {"model_dims": 48, "head_dim": 12, "hidden_dims": 192}),
    "OPT 350M": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
                 {"norm_policy": "post_skip", "final_norm": False, "embedding_dims": 16}),
    "OPT": ("opt", {"word_embed_proj_dim": 32},
            {"norm_policy": "pre", "final_norm": True, "embedding_dims": None,
             "max_positions": 2048, "position_offset": 2, "hidden_dims": 3072}),
    "no last norm": ("opt", {"_remove_final_layer_norm": True}, {"final_norm": False}),
    "all heads": ("gpt_bigcode", {"multi_query": False}, {"num_kv_heads": 4}),
    "one head": ("gpt_bigcode", {}, {"num_kv_heads": 1}),
    "logits": ("cohere", {"logit_scale": 0.25}, {"logits_divisor": 4.0, "qk_norm": "none"}),
    "norms of heads": ("cohere", {"use_qk_norm": True}, {"qk_norm": "each_head"}),
    "norms without bias": (
        "stablelm", {"qk_layernorm": True},
        {"norms": NormPlacesConfig(query_key=NormConfig(bias=False)), "shared_norm": False},
    ),
    "not turned": ("cohere2", {"sliding_window_pattern": 2}, {"no_rotary_layers": (1, 3)}),
    "EXAONE's window": ("exaone4", {"layer_types": SLIDING, "sliding_window_pattern": "LG"},
                        {"no_rotary_layers": (1, 3)}),
    "EXAONE without": ("exaone4", {"sliding_window": None, "sliding_window_pattern": None},
                       {"no_rotary_layers": (), "sliding_window": None}),
    "older name of seeing all": ("exaone4", {"layer_types": ["attention"] * 4},
                                 {"no_rotary_layers": (0, 1, 2, 3), "layer_types": ()}),
    "growing queries": ("ministral3", {"head_dim": 8}, {
        "query_position_scaling": PositionScalingConfig(0.1, 16_384)}),
    "length of the scaling": (
        "ministral3",
        {"rope_scaling": {"type": "yarn", "factor": 2.0, **BETA}, "max_position_embeddings": 64},
        {"query_position_scaling": PositionScalingConfig(0.5, 64)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", READ)
def test_read(what: str) -> None:
    kind, keys, fields = READ[what]
    found = config_of({"model_type": kind, **SIZES, **keys})
    assert {name: getattr(found, name) for name in fields} == fields


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "not parallel": ("falcon", NEW | {"parallel_attn": False}, "parallel_attn: expected true"),
    "norms of the old": ("falcon", {"num_ln_in_parallel_attn": 2},
                         "num_ln_in_parallel_attn: found 2, which the old architecture lacks"),
    "norms of the new": ("falcon", NEW | {"num_ln_in_parallel_attn": 3},
                         "num_ln_in_parallel_attn: found 3, which the new architecture lacks"),
    "some heads": ("falcon", {"multi_query": False, "num_kv_heads": 2},
                   "num_kv_heads: expected num_attention_heads = 4, found 2"),
    "odd turn": ("gptj", {"rotary_dim": 3}, "rotary_dim: expected an even number"),
    "wide turn": ("codegen", {"rotary_dim": 16}, "up to the width 8 of a head, found 16"),
    "blocks": ("codegen", {"n_head": 2, "rotary_dim": 2}, "n_head: expected a multiple of 4"),
    "scale": ("cohere", {"logit_scale": 0}, "logit_scale: expected a number above 0"),
    "letters": ("exaone4", {"sliding_window_pattern": "LLLG"},
                "sliding_window_pattern: without layer_types expected a number, found 'LLLG'"),
    "no beta": ("ministral3", {"rope_scaling": {"type": "yarn", "factor": 2.0}},
                "rope_parameters.llama_4_scaling_beta: expected a number, found None"),
    "no length": ("ministral3", {"rope_parameters": {"rope_type": "default", **BETA}},
                  "rope_parameters.original_max_position_embeddings: expected a number"),
    "kind of a scaling": ("gemma3_text", {"rope_scaling": {"type": "linear", "factor": 8.0}},
                          "rope_scaling.type: 'linear' without rope_type"),
    "latent width": ("deepseek_v3", {"num_key_value_heads": 4, "head_dim": 32},
                     "head_dim: expected 64, which follows from the other widths, found 32"),
    "whole width": ("deepseek_v3", {"qk_head_dim": 128}, "qk_head_dim: expected 192"),
    "width": ("stablelm", {"head_dim": 4}, "head_dim: expected hidden_size / heads = 8, found 4"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_name(what: str) -> None:
    kind, keys, message = REFUSED[what]
    sizes = SIZES
    if kind in ("gptj", "codegen"):
        sizes = {"vocab_size": 41, "n_embd": 32, "n_layer": 2, "n_head": 4}
    with pytest.raises(UnsupportedConfigError, match=message):
        config_of({"model_type": kind, **sizes, **keys})


def test_shares_and_inverses_come_back() -> None:
    for width in range(2, 300):
        for turned in range(2, width + 1, 2):
            assert int(width * fraction_of(turned, width)) == turned
    assert all(1 / inverse_of(1 / number) == 1 / number for number in (0.0625, 0.3, 0.1, 7.0, 0.8))
