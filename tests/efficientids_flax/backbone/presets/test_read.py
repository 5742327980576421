"""HuggingFace's `config.json`, old and new, as ours; what we do not compute is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.backbone.presets.folder import hub_cache, pretrained_folder
from efficientids_flax.backbone.presets.read import (
    UnsupportedConfigError,
    backbone_config,
    config_of,
)
from efficientids_flax.config import BackboneConfig, RotaryConfig, RotaryScalingConfig

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip


def config(kind: str, **values: Any) -> BackboneConfig:
    return config_of({"model_type": kind, **SIZES, **values})


SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"factor": 4.0, "original_max_position_embeddings": 128}
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
LOCAL = {"rope_type": "default", "rope_theta": 1e4}
# fmt: off
OLD_AND_NEW = {
    # family: (style of transformers 4, style of 5)
    "llama": ({"rope_theta": 5e5, "rope_scaling": SCALED},
              {"rope_parameters": {**SCALED, "rope_theta": 5e5}}),
    "qwen2": ({"rope_theta": 1e6, "rope_scaling": {"type": "yarn", **YARN},
               "torch_dtype": "bfloat16", "use_sliding_window": True, "sliding_window": 9,
               "max_window_layers": 3},
              {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, **YARN},
               "dtype": "bfloat16", "use_sliding_window": True, "sliding_window": 9,
               "layer_types": ["full_attention"] * 3 + ["sliding_attention"]}),
    "gemma": ({"hidden_act": "gelu", "hidden_activation": None, "rope_theta": 1e4},
              {"hidden_act": "gelu_pytorch_tanh", "rope_parameters": LOCAL}),
    "gemma2": ({"rope_theta": 1e4, "cache_implementation": "hybrid", "sliding_window": 7},
               {"rope_parameters": LOCAL, "sliding_window": 7,
                "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "gemma3_text": ({"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 2,
                     "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
                    {"rope_parameters": {"sliding_attention": LOCAL, "full_attention":
                        {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}},
                     "layer_types": ["sliding_attention", "full_attention"] * 2}),
    "phi3": ({"rope_theta": 1e4, "rope_scaling": {"type": "su", **LONG},
              "partial_rotary_factor": 1.0, "original_max_position_embeddings": 128},
             {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4,
                                  "partial_rotary_factor": 1.0,
                                  "original_max_position_embeddings": 128, **LONG},
              "original_max_position_embeddings": 128}),
    "gpt_neox": ({"rotary_pct": 0.5, "rotary_emb_base": 20_000},
                 {"rope_parameters": {"rope_type": "default", "rope_theta": 2e4,
                                      "partial_rotary_factor": 0.5}}),
}
# fmt: on


@pytest.mark.parametrize("kind", OLD_AND_NEW)
def test_old_and_new_style_are_one_configuration(kind: str) -> None:
    old, new = OLD_AND_NEW[kind]
    assert config(kind, **old) == config(kind, **new)


def test_missing_keys_mean_the_defaults_of_the_class() -> None:
    found = {kind: config(kind) for kind in ("llama", "mistral", "qwen3", "gemma", "smollm3")}
    assert [found[kind].tied_embeddings for kind in found] == [False, False, False, True, True]
    assert [found[kind].head_dim for kind in found] == [8, 8, 128, 256, 8]
    assert found["mistral"].sliding_window == 4096
    assert found["smollm3"].no_rotary_layers == (3,)
    assert found["smollm3"].rotary == RotaryConfig(
        max_timescale=2e6, in_float32=False, by_frequency=True
    )
    gemma3 = config("gemma3_text", num_hidden_layers=12)
    assert gemma3.layer_types == (*["sliding"] * 5, "full") * 2
    assert gemma3.rotary == RotaryConfig(max_timescale=1e6, in_float32=False, by_frequency=True)
    assert gemma3.sliding_rotary == RotaryConfig(
        max_timescale=1e4, in_float32=False, by_frequency=True
    )
    assert (gemma3.attention_logit_cap, gemma3.final_logit_cap) == (None, None)
    gemma2 = config("gemma2", query_pre_attn_scalar=16)
    assert (gemma2.attention_logit_cap, gemma2.final_logit_cap) == (50.0, 30.0)
    assert gemma2.query_scaling == 0.25


def test_null_is_not_the_default_where_it_means_something() -> None:
    assert config("qwen2", num_key_value_heads=None).num_kv_heads == 4
    assert config("mistral", sliding_window=None).sliding_window is None
    assert config("gemma2", attn_logit_softcapping=None).attention_logit_cap is None
    assert config("llama", num_key_value_heads=None).num_kv_heads == 4
    assert config("llama", head_dim=None).head_dim == 8


def test_a_width_of_heads_that_is_told_need_not_divide_the_models() -> None:
    found = config("deepseek_v3", hidden_size=33, qk_nope_head_dim=3, qk_rope_head_dim=4)
    assert (found.model_dims, found.head_dim) == (33, 7)


def test_windows() -> None:
    off = config("qwen2", use_sliding_window=False, sliding_window=4, max_window_layers=0)
    assert (off.sliding_window, off.layer_types) == (None, ())
    all_slide = config("gemma3_text", num_hidden_layers=3, sliding_window=4)
    assert (all_slide.sliding_window, all_slide.layer_types) == (4, ())
    assert all_slide.rotary == RotaryConfig(max_timescale=1e4, in_float32=False, by_frequency=True)
    turned = config(
        "smollm3", use_sliding_window=True, sliding_window=4, no_rope_layers=[1, 0, 1, 0]
    )
    assert turned.layer_types == ("full", "sliding", "full", "sliding")
    assert turned.no_rotary_layers == (1, 3)


def test_mistral_with_layer_types_is_ministral_as_auto_config_opens_it() -> None:
    mixed = {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 2}
    assert config("mistral", **mixed) == config("ministral", **mixed)
    inner = {"model_type": "mistral", **SIZES, **mixed}  # the class itself does not look at them
    wrapped = config_of({"model_type": "mistral3", "text_config": inner})
    assert (wrapped.sliding_window, wrapped.layer_types) == (9, ())


def test_original_length_of_the_configuration_comes_first() -> None:
    found = config("llama", rope_scaling=SCALED, original_max_position_embeddings=99).rotary
    assert found and found.scaling == RotaryScalingConfig(
        "llama3", factor=8.0, original_max_positions=99
    )
    longrope = config(
        "phi3", rope_scaling={"type": "longrope", **LONG}, max_position_embeddings=8192
    )
    assert longrope.rotary and longrope.rotary.scaling
    assert longrope.rotary.scaling.factor == 2.0  # 8192 / 4096, the default of Phi-3


@pytest.mark.parametrize("value", [False, "", [], {}, None])
def test_settings_that_are_false_are_none(value: Any) -> None:
    assert config("llama", rope_scaling=value) == config("llama")
    with_theta = config("llama", rope_scaling=value, rope_parameters={"rope_theta": 7.0})
    assert with_theta.rotary and with_theta.rotary.max_timescale == 7


def test_yarn_takes_its_defaults_for_betas_of_zero_and_null_for_false() -> None:
    """As `modeling_rope_utils.py` reads them: `beta or default`, and whether `truncate` is true."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
    plain = config("llama", rope_scaling=yarn).rotary
    for value in (None, 0):
        more = {"beta_fast": value, "beta_slow": value, "mscale": None}
        assert config("llama", rope_scaling={**yarn, **more}).rotary == plain
    wanted = config("llama", rope_scaling={**yarn, "truncate": False}).rotary
    assert config("llama", rope_scaling={**yarn, "truncate": None}).rotary == wanted != plain


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "family": ({"model_type": "mamba"}, "model_type: 'mamba' is not supported; known are llama"),
    "no family": ({"model_type": None}, "model_type: None is not supported"),
    "rope type": ({"rope_scaling": {"type": "mrope"}}, "rope_type: 'mrope' is not supported"),
    "rope setting": ({"rope_parameters": {"full_attention": {"rope_type": "default"}}},
                     r"rope_parameters.full_attention: expected a value, found a mapping"),
    "rope without factor": ({"rope_scaling": {"type": "linear"}}, "factor: linear scaling needs"),
    "rope of Phi-3": ({"model_type": "phi3", "rope_scaling": {"type": "linear", "factor": 2.0}},
                      "'linear' is not supported; known are default, longrope"),
    "rope of layers": ({"model_type": "gemma3_text", "rope_parameters": {"rope_theta": 1e4}},
                       "expected full_attention and sliding_attention, found rope_theta"),
    "family of no word": ({"model_type": []}, r"model_type: \[\] is not supported"),
    "rope type of no word": ({"rope_scaling": {"rope_type": [1]}}, r"'\[1\]' is not supported"),
    "turned share of no number": ({"model_type": "phi", "partial_rotary_factor": []}, "fraction"),
    "turned share of null": ({"model_type": "glm", "partial_rotary_factor": None},
                             "partial_rotary_factor: expected a number, found null"),
    "growth of no number": ({"model_type": "deepseek_v3", "rope_scaling": {
                                 "rope_type": "yarn", "factor": 2.0, "mscale_all_dim": "x"}},
                            "mscale_all_dim: expected"),
    "generic name of no number": ({"model_type": "gpt2", "hidden_size": float("nan")},
                                  "n_embd: expected a positive whole number, found nan"),
    "rope of no length": ({"rope_scaling": SCALED, "original_max_position_embeddings": 0},
                          "original_max_position_embeddings: expected a number above 0, found 0"),
    "rope no mapping": ({"rope_scaling": "linear"}, "rope_scaling: expected a mapping"),
    "partial rotation": ({"partial_rotary_factor": 0.5,
                          "rope_scaling": {"type": "linear", "factor": 2.0}},
                         "found 0.5, this family rotates whole heads"),
    "quantised": ({"quantization_config": {"quant_method": "gptq", "bits": 4}},
                  r"quantised checkpoints \(gptq\) are not supported"),
    "other sizes by layer": ({"per_layer_config": {"0": {"hidden_size": 4}}},
                             "per_layer_config: found .*give the key in `ignore_keys`"),
    "activation": ({"hidden_act": "xielu"}, "hidden_act: 'xielu' is not supported"),
    "share of pairs": ({"model_type": "phi", "rope_scaling": {"rope_type": "proportional"}},
                       "rope_type: 'proportional' is not supported"),
    "dtype": ({"dtype": "float8_e4m3fn"}, "dtype: 'float8_e4m3fn' is not supported"),
    "cross attention": ({"model_type": "gpt2", "add_cross_attention": True},
                        "add_cross_attention: found True; only False is supported"),
    "width of GPT-NeoX": ({"model_type": "gpt_neox", "head_dim": 4},
                          "head_dim: expected hidden_size / heads = 8"),
    "both ways": ({"model_type": "gemma", "use_bidirectional_attention": True},
                  "use_bidirectional_attention: found True; only None or False is supported"),
    "both ways beside images": ({"model_type": "gemma3", "text_config": {
                                     **SIZES, "use_bidirectional_attention": True}},
                                "use_bidirectional_attention: found True; only None or False is"),
    "layer type": ({"model_type": "qwen3", "layer_types": ["chunked_attention"] * 4},
                   "layer_types: 'chunked_attention' is not supported"),
    "window in use": ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 4},
                      "layer_types has sliding layers, but no window is in use"),
    "type of a size": ({"hidden_size": "32"},
                       "hidden_size: expected a positive whole number, found '32'"),
    "scale of queries": ({"model_type": "gemma2", "query_pre_attn_scalar": 0},
                         "query_pre_attn_scalar: expected a number above 0, found 0"),
    "pattern of layers": ({"model_type": "exaone4", "sliding_window_pattern": 0},
                          "sliding_window_pattern: expected a number above 0, found 0"),
    "parts of a layer": ({"num_hidden_layers": 2.5}, "positive whole number, found 2.5"),
    "no heads": ({"model_type": "stablelm", "num_attention_heads": 0}, "whole number, found 0"),
    "layers in words": ({"model_type": "exaone4", "num_hidden_layers": "",
                         "layer_types": ["full_attention"]}, "positive whole number, found ''"),
    "rope of a derived family": ({"model_type": "phi", "rope_parameters": 3},
                                 "rope_parameters: expected a mapping, found 3"),
    "type of a flag": ({"attention_bias": 1}, "attention_bias: expected a bool, found 1"),
    "heads": ({"hidden_size": 33}, "hidden_size: 33 is no multiple of the number of heads"),
    "too few layers": ({"model_type": "smollm3", "no_rope_layers": [1]},
                       "no_rope_layers: expected 4 entries, found 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name(kind: str) -> None:
    values, message = REFUSED[kind]
    with pytest.raises(UnsupportedConfigError, match=message):
        config_of({"model_type": "llama", **SIZES, **values})


def test_all_problems_at_once() -> None:
    with pytest.raises(UnsupportedConfigError, match=r"(?s)3 problem.*per_layer.*'x'.*'y'"):
        config("llama", per_layer_config={"0": {}}, rope_scaling={"type": "x"}, hidden_act="y")


def noted(kind: str, **values: Any) -> tuple[BackboneConfig, list[str]]:
    notes: list[str] = []
    return config_of({"model_type": kind, **SIZES, **values}, notes=notes), notes


def test_keys_that_mean_nothing_are_passed_over_with_one_note() -> None:
    plain = config("llama")
    assert noted("llama", _name_or_path="x", bos_token_id=1) == (plain, [])
    found, notes = noted(
        "llama", sinks=None, more=False, other=[], use_bidirectional_attention=True
    )
    assert found == plain
    assert notes == ["config.json: keys that llama does not read, as in transformers: sinks, more, "
                     "other, use_bidirectional_attention"]  # fmt: skip
    # Another family's: the class of this one does not read it.
    pattern = config("gemma2", sliding_window=5, sliding_window_pattern=4)
    assert pattern.layer_types == ("sliding", "full") * 2
    types = ["full_attention", "sliding_attention"] * 2
    alike = config("llama", layer_types=types, use_sliding_window=False)
    assert alike == config("llama", use_sliding_window=False) == config("llama")
    # Of settings of the rotary positions.
    plain = config("llama", rope_scaling={"type": "yarn", **YARN})
    found, notes = noted("llama", rope_scaling={"type": "yarn", **YARN, "finetuned": True})
    assert found == plain
    assert notes == ["rope_parameters: settings that yarn does not read: finetuned"]
    sections = noted("qwen2", rope_scaling={"type": "default", "mrope_section": [2, 1, 1]})
    assert sections[0] == config("qwen2")
    assert noted("llama", partial_rotary_factor=0.5)[0] == config("llama")


def test_keys_of_the_user_are_taken_as_missing() -> None:
    scaling = {"type": "linear", "factor": 2.0}
    values = {
        "model_type": "llama", **SIZES, "per_layer_config": {"0": {"hidden_size": 2}},
        "rope_scaling": {**scaling, "partial_rotary_factor": 0.5},
    }  # fmt: skip
    found = config_of(values, ("per_layer_config", "partial_rotary_factor"))
    assert found == config("llama", rope_scaling=scaling)


@pytest.mark.parametrize("value", [False, None, 0, "", []])
def test_tokens_see_later_ones_where_is_causal_is_not_true(value: Any) -> None:
    found = config("mistral", is_causal=value, sliding_window=4)
    assert found.attention_mask == "bidirectional"
    assert (found.sliding_window, found.sliding_window_ahead) == (5, 5)  # |query - key| <= 4
    assert config("mistral", is_causal=True) == config("mistral")


def test_generic_names_are_the_same_keys() -> None:
    generic = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
               "max_position_embeddings": 512}  # fmt: skip
    own = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512}
    found = config_of({"model_type": "gpt2", "vocab_size": 64, **generic})
    assert found == config_of({"model_type": "gpt2", "vocab_size": 64, **own})
    notes: list[str] = []
    both = {"model_type": "gpt2", "vocab_size": 64, **own, **generic, "n_head": 2}
    assert config_of(both, notes=notes) == found
    assert notes == ["config.json: n_head is 2, num_attention_heads = 4 is used"]


def test_the_language_model_of_a_multimodal_configuration() -> None:
    text = {**SIZES, "head_dim": 8, "sliding_window": 5}
    outer = {"model_type": "gemma3", "text_config": text, "vision_config": {"x": 1},
             "torch_dtype": "bfloat16"}  # fmt: skip
    assert config_of(outer) == config("gemma3_text", head_dim=8, sliding_window=5, dtype="bfloat16")


@pytest.mark.parametrize(
    ("kind", "outer", "inner", "both_ways"),
    [("mistral3", False, {}, True), ("mistral3", True, {"is_causal": False}, False),
     ("mistral3", None, {"is_causal": False}, True), ("internvl", False, {}, False),
     ("internvl", True, {"is_causal": False}, True)],
)  # fmt: skip
def test_whether_a_multimodal_model_is_causal(
    kind: str, outer: bool | None, inner: dict[str, bool], both_ways: bool
) -> None:
    """Some classes hand their own value on, others do not look at it."""
    found = config_of({"model_type": kind, "is_causal": outer, "text_config": {**SIZES, **inner}})
    assert (found.attention_mask == "bidirectional") is both_ways


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["llama", "mistral", "qwen2", "qwen3", "olmo2", "granite", "phi3"]),
    heads=st.sampled_from([1, 2, 4]),
    groups=st.sampled_from([1, 2]),
    width=st.sampled_from([2, 4, 6]),
    layers=st.integers(1, 5),
    theta=st.floats(10.0, 1e7),
    tied=st.booleans(),
    window=st.none() | st.integers(1, 9),
)
def test_values_arrive_and_travel_as_json(
    kind, heads, groups, width, layers, theta, tied, window
) -> None:
    values = {
        "model_type": kind, "vocab_size": 11, "hidden_size": heads * groups * width,
        "intermediate_size": 5, "num_hidden_layers": layers,
        "num_attention_heads": heads * groups, "num_key_value_heads": heads, "head_dim": width,
        "rope_theta": theta, "tie_word_embeddings": tied, "sliding_window": window,
    }  # fmt: skip
    found = config_of(json.loads(json.dumps(values)))
    assert (found.num_heads, found.num_kv_heads, found.head_dim) == (heads * groups, heads, width)
    assert (found.num_layers, found.tied_embeddings) == (layers, tied)
    assert found.rotary and found.rotary.max_timescale == theta
    assert found.sliding_window == (window if kind in ("mistral", "phi3") else None)
    assert BackboneConfig.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HuggingFace cache with one model, as `huggingface_hub` lays it out."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    model = tmp_path / "hub" / "models--owner--name"
    snapshot = model / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llama", **SIZES}))
    return snapshot


def test_names_are_found_in_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert backbone_config("owner/name") == config("llama")
    assert backbone_config(cache) == config("llama")
    assert pretrained_folder("owner/name", "a" * 40) == cache
    monkeypatch.setenv("HF_HUB_CACHE", "~/elsewhere")
    assert hub_cache() == Path.home() / "elsewhere"


def test_what_is_not_there_is_told(cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"owner/other: no such folder.*hf download owner"):
        backbone_config("owner/other")
    with pytest.raises(FileNotFoundError, match="has no revision 'v2'"):
        backbone_config("owner/name", revision="v2")
    with pytest.raises(FileNotFoundError, match="is a file"):
        backbone_config(cache / "config.json")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        backbone_config(cache.parent)
    (cache / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        backbone_config(cache)


def test_neither_jax_nor_transformers_is_imported() -> None:
    code = (
        "import sys, efficientids_flax.backbone.presets.read;"
        "assert not {'jax', 'flax', 'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
