"""The exported `config.json`: readers of either style get the same model."""

import json
from dataclasses import replace
from typing import Any

import pytest

from converters.errors import MappingError
from converters.huggingface.export.config_json import choose_family, config_json
from converters.huggingface.tables import TABLES
from efficientids_flax.backbone.presets.families import FAMILIES
from efficientids_flax.backbone.presets.read import config_of, model_type
from efficientids_flax.config import BackboneConfig, RotaryConfig, RotaryScalingConfig
from tests.converters.huggingface.recorded_models import FOLDERS, NAMES

# Keys that only one of the styles reads; late versions of style 4 read `layer_types` too.
STYLE_5 = {"rope_parameters", "dtype", "layer_types"}
STYLE_4 = {"rope_theta", "rope_scaling", "torch_dtype", "rope_local_base_freq", "rotary_pct",
           "rotary_emb_base", "partial_rotary_factor", "sliding_window_pattern",
           "max_window_layers"}  # fmt: skip
LATE = {"olmo3", "exaone4", "ministral"}  # families that had `layer_types` from the beginning


def recorded(name: str) -> dict[str, Any]:
    return json.loads((FOLDERS / name / "config.json").read_text())


def without(values: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def styles_agree(config: BackboneConfig, family: str, known: dict[str, Any] | None = None) -> Any:
    values, notes = config_json(config, family, known or {}, {})
    assert notes == []
    values = json.loads(json.dumps(values))
    late = {"layer_types"} if family in LATE else set()
    assert config_of(without(values, STYLE_4)) == config_of(without(values, STYLE_5 - late))
    return values


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_as_the_same_model(name: str) -> None:
    known = recorded(name)
    config = config_of(known)
    values = styles_agree(config, model_type(known), known)
    assert config_of(values) == config
    assert choose_family(config, known, {}) == model_type(known)
    tokens = {key: value for key, value in known.items() if key.endswith("_token_id")}
    assert tokens.items() <= values.items()
    assert values["architectures"] == known["architectures"]


SCALINGS = {
    "linear": RotaryScalingConfig("linear", 4.0),
    "dynamic": RotaryScalingConfig("dynamic", 4.0, 64),
    "llama3": RotaryScalingConfig("llama3", 8.0, 64, 1.0, 4.0),
    "yarn": RotaryScalingConfig("yarn", 4.0, 64, attention_factor=1.2, beta_fast=16.0),
    "proportional": RotaryScalingConfig("proportional", 2.0, 64, share=0.25),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_rotary_scaling(kind: str) -> None:
    config = config_of(recorded("llama_tied"))
    assert config.rotary is not None
    config = replace(config, rotary=replace(config.rotary, scaling=SCALINGS[kind]))
    values = styles_agree(config, "llama")
    assert values["rope_scaling"]["rope_type"] == values["rope_parameters"]["rope_type"] == kind
    assert "rope_theta" not in values["rope_scaling"]


def test_longrope_as_phi3_has_it() -> None:
    """The class of style 4 accepts only three keys, and takes the factor from the two lengths."""
    values = styles_agree(config_of(recorded("phi3")), "phi3")
    assert values["rope_scaling"].keys() == {"type", "short_factor", "long_factor"}
    recorded_values = recorded("phi3")
    for key in ("max_position_embeddings", "original_max_position_embeddings"):
        assert values[key] == recorded_values[key]


@pytest.mark.parametrize("slides", [(), (0,), (2, 3), (0, 1, 2, 3), (0, 2)])
def test_windows_by_layer(slides: tuple[int, ...]) -> None:
    kinds: Any = tuple("sliding" if layer in slides else "full" for layer in range(4))
    config = replace(
        config_of(recorded("qwen2")),
        num_layers=4,
        layer_types=kinds,
        sliding_window=5 if slides else None,
    )
    values, _ = config_json(config, "qwen2", {}, {})
    found = config_of(values)
    window, types = found.sliding_window, found.layer_types
    alike = types or (("full" if window is None else "sliding"),) * 4
    assert (alike, window) == (kinds, config.sliding_window)
    if slides == tuple(range(4 - len(slides), 4)) and slides:  # `max_window_layers` can express it
        assert config_of(without(values, STYLE_5)) == config_of(without(values, STYLE_4))


def test_the_family_is_the_first_that_computes_it() -> None:
    config = BackboneConfig(
        vocab_size=9, num_layers=2, model_dims=8, hidden_dims=8, num_heads=2, num_kv_heads=2,
        head_dim=4, rotary=RotaryConfig(), gated_mlp=True, activation="silu",
    )  # fmt: skip
    assert choose_family(config, {}, {}) == "llama"
    assert choose_family(config, {"model_type": "mistral"}, {}) == "mistral"
    assert choose_family(replace(config, sliding_window=3), {}, {}) == "mistral"
    assert choose_family(replace(config, qkv_bias=True), {}, {}) == "qwen2"
    assert choose_family(replace(config, qk_norm="per_head"), {}, {}) == "qwen3"
    assert choose_family(replace(config, embedding_scale=3.0, scale_injected_embeddings=True),
                         {}, {}) == "granite"  # fmt: skip
    with pytest.raises(MappingError, match="lm_head_bias: the model has True, the family False"):
        choose_family(replace(config, lm_head_bias=True), {}, {})


def test_keys_of_the_user_come_first_and_are_checked() -> None:
    config = config_of(recorded("llama_tied"))
    values, _ = config_json(config, "llama", {}, {"eos_token_id": 3, "my_key": 1})
    assert (values["eos_token_id"], values["my_key"]) == (3, 1)
    with pytest.raises(MappingError, match="num_layers: the model has"):
        config_json(config, "llama", {}, {"num_hidden_layers": 7})


def test_every_family_has_a_table() -> None:
    assert TABLES.keys() == FAMILIES.keys()


@pytest.mark.parametrize(("family", "written"), [("ministral", True), ("qwen2", False)])
def test_the_width_of_a_head_is_written_where_the_class_has_it(family: str, written: bool) -> None:
    """Ministral's class does not accept None as the width of a head."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = config_of({"model_type": family, **sizes})
    values, _ = config_json(config, family, {}, {})
    assert ("head_dim" in values) == written


SMALL = {
    "vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 20, "moe_intermediate_size": 6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 5, "head_dim": 8}),
        ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 2}),
        ("qwen2_moe", {"use_sliding_window": True, "mlp_only_layers": [0, 2], "qkv_bias": False}),
        ("qwen2_moe", {"mlp_only_layers": [0, 1, 2]}),
        ("olmoe", {"clip_qkv": 2.0, "norm_topk_prob": True}),
        ("gpt_oss", {"swiglu_limit": 3.0, "layer_types": ["full_attention"] * 3}),
        ("deepseek_v3", {"q_lora_rank": None, "n_shared_experts": 2, "rope_interleave": False}),
        ("deepseek_v3", {"first_k_dense_replace": 3, "rope_scaling": {
            "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "mscale": 1.0,
            "mscale_all_dim": 1.0}}),
        ("mpt", {"attn_config": {"softmax_scale": 0.25, "clip_qkv": 3}}),
        ("bloom", {"apply_residual_connection_post_layernorm": True}),
        ("falcon", {"alibi": True, "multi_query": False}),
    ],
)  # fmt: skip
def test_settings_of_experts_and_biases_come_back(family: str, settings: dict[str, Any]) -> None:
    given = {"model_type": family, **SMALL, **settings}
    config = config_of(given)
    values, notes = config_json(config, family, given, {})
    assert (config_of(values), notes) == (config, [])
