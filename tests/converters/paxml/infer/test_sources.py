"""Tree, dump, flags and defaults: which takes precedence, and what happens if they disagree."""

import re
from dataclasses import replace

import pytest

from converters.errors import MappingError
from converters.paxml.infer.hparams import Symbol
from converters.paxml.infer.model import infer_model
from efficientids_flax.config import LayerSetting, RelativeBiasConfig, RotaryConfig
from tests.converters.paxml.recorded_jobs import LLAMA, dump, specs


def test_provenance_names_tree_dump_and_given():
    flags = {"norm_epsilon": "1e-4", "optimizer.beta1": 0.9, "rotary.pairing": "interleaved"}
    found = infer_model(specs("Llama_gda"), "transformer_lm", dump("Llama_gda"), flags)
    assert {key: value["from"] for key, value in found.provenance.items()} | {
        "num_heads": "tree",
        "activation": "dump",
        "norm_epsilon": "given",
        "parallel_residual": "dump",  # no line of it: Praxis' default
        "rotary.max_timescale": "dump",
        "rotary.pairing": "given",
    } == {key: value["from"] for key, value in found.provenance.items()}
    assert found.provenance["norm_epsilon"]["value"] == found.config.norm_epsilon == 1e-4
    assert {key for key in found.provenance if "." not in key} | {"rotary"} == set(
        found.config.to_dict()
    )


def test_without_dump_the_usual_case_of_a_tree_is_assumed_where_another_fits():
    found = infer_model(specs("Llama_gda"), "transformer_lm", None, {"activation": "relu"})
    assert {key: value["from"] for key, value in found.provenance.items()} | {
        "norm": "assumed",  # a LayerNorm without biases has the same leaves
        "norm_policy": "assumed",
        "rotary.pairing": "assumed",
        "num_layers": "tree",
        "param_dtype": "tree",
        "activation": "given",
    } == {key: value["from"] for key, value in found.provenance.items()}
    hybrid = infer_model(specs("PalmLike_gda"), "transformer_lm")
    assert hybrid.provenance["norm_policy"]["from"] == "tree"  # two norms: no other policy has them


def test_without_dump_the_tree_still_gives_the_shapes():
    found = infer_model(specs("PalmLike_gda"), "transformer_lm").config
    assert (found.num_kv_heads, found.multi_query, found.norm_policy) == (1, True, "primer_hybrid")
    assert found.rotary == RotaryConfig("half_split")


def test_a_flag_may_decide_what_the_tree_only_suggests():
    flags = {"norm_policy": "post_skip", "rotary": "null", "layer_types": '["full", "full"]'}
    found = infer_model(specs("Llama_gda"), "transformer_lm", None, flags).config
    assert (found.norm_policy, found.rotary, found.layer_types) == (
        "post_skip",
        None,
        ("full",) * 2,
    )


def test_contradictions_name_both_sides():
    claims = dump("Llama_gda") | {
        "model.lm_tpl.stacked_transformer_tpl.num_heads": 8,
        "model.lm_tpl.vocab_size": 100,
    }
    with pytest.raises(MappingError) as error:
        infer_model(specs("Llama_gda"), "transformer_lm", claims, {"hidden_dims": 65})
    text = str(error.value)
    assert "num_heads: the tree has 4 (mdl_vars/params/lm/transformer/x_layers_1/self_atten" in text
    assert "the dump says 8 (model.lm_tpl.stacked_transformer_tpl.num_heads)" in text
    assert "vocab_size: the tree has 96" in text
    assert "a flag says 65 (--set hidden_dims)" in text


def test_a_parameter_that_is_not_there_contradicts_too():
    layer = "model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl"
    claims = dump("Llama_gda") | {f"{layer}.tr_atten_tpl.internal_enable_per_dim_scale": True}
    with pytest.raises(MappingError, match=r"query_scaling: the dump says 'per_dim_scale'.*none"):
        infer_model(specs("Llama_gda"), "transformer_lm", claims)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("moe_layers", [1], r"moe.layers: the tree has None \(no ff_layer/gate.*says \(1,\)"),
        (
            "input_dropout_prob",
            Symbol("", "float64"),
            "input_dropout: .*prob holds float64, .*--set",
        ),
    ],
)
def test_dumps_that_do_not_fit(path, value, sentence):
    values = dump("Llama_gda") | {f"model.lm_tpl.stacked_transformer_tpl.{path}": value}
    with pytest.raises(MappingError, match=sentence):
        infer_model(specs("Llama_gda"), "transformer_lm", values)


def test_what_a_dump_does_not_write_out_may_come_from_elsewhere():
    stack = "model.lm_tpl.stacked_transformer_tpl"
    opaque = {
        f"{stack}.{n}": Symbol("", "int64") for n in ("num_heads", "num_layers", "dim_per_head")
    }
    values = dump("Llama_gda") | opaque | {f"{stack}.input_dropout_prob": Symbol("", "float64")}
    flags = {"input_dropout": 0.25}
    found = infer_model(specs("Llama_gda"), "transformer_lm", values, flags).config
    assert found == replace(LLAMA, input_dropout=0.25)


def test_experts_and_biases_that_only_the_tree_has():
    stack = "model.lm_tpl.stacked_transformer_tpl"
    values = dump("MoeGpt_gda") | {f"{stack}.moe_layers": None}
    with pytest.raises(MappingError, match=r"moe: the tree has \[1\].*, the dump says None"):
        infer_model(specs("MoeGpt_gda"), "transformer_lm", values)
    bias = "x_layers_{}/self_attention/relative_bias/wrb"
    root = "mdl_vars/params/lm/transformer/"
    biased = {root + bias.format(i): (4, 32) for i in (0, 1)}
    with pytest.raises(MappingError, match=r"relative_bias: the tree has 32.*says None"):
        infer_model(specs("Llama_gda", **biased), "transformer_lm", dump("Llama_gda"))
    found = infer_model(specs("Llama_gda", **biased), "transformer_lm").config
    assert found.relative_bias == RelativeBiasConfig(32)


def test_unknown_flags_name_the_nearest():
    flags = {"num_head": 4, "beta1": 0.9}
    with pytest.raises(MappingError) as error:
        infer_model(specs("Llama_gda"), "transformer_lm", None, flags)
    assert "--set num_head: unknown key; did you mean num_heads?" in str(error.value)
    assert "--set beta1: unknown key; did you mean optimizer.beta1?" in str(error.value)
    with pytest.raises(MappingError, match=r"did you mean backbone\.norm_epsilon\?"):
        infer_model(specs("i_llama"), "efficientids", None, {"norm_epsilon": 1e-5})


def test_invalid_flag_value():
    with pytest.raises(MappingError, match="norm_epsilon: expected float, found 'small'"):
        infer_model(specs("Llama_gda"), "transformer_lm", None, {"norm_epsilon": "small"})


def test_no_family():
    with pytest.raises(MappingError, match="family 'generic' has no configuration"):
        infer_model(specs("Llama_gda"), "generic")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("dconv_qkv", True, "dconv_qkv is True, which the decoder does not compute"),
        ("rotary_position_emb_tpl.cls", "X", "rotary_position_emb_tpl.cls is X"),
        ("cls", "OtherAttention", "tr_atten_tpl.cls is OtherAttention"),
    ],
)
def test_settings_that_the_decoder_lacks_are_refused(path, value, sentence):
    layer = "model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl"
    claims = dump("Llama_gda") | {f"{layer}.tr_atten_tpl.{path}": value}
    with pytest.raises(MappingError, match=re.escape(sentence) + ".*--family generic"):
        infer_model(specs("Llama_gda"), "transformer_lm", claims)


def test_layers_of_a_template_list_may_differ():
    layer = "model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl"
    values = {}
    for path, value in dump("Llama_gda").items():
        if path.startswith(f"{layer}."):
            values |= {path.replace(layer, f"{layer}[{i}]"): value for i in (0, 1)}
        else:
            values[path] = value
    found = infer_model(specs("Llama_gda"), "transformer_lm", values)
    assert found.config == LLAMA
    values[f"{layer}[1].norm_policy"] = "post"
    found = infer_model(specs("Llama_gda"), "transformer_lm", values)
    setting = LayerSetting(layers=(1,), key="norm_policy", value="post")
    assert found.config == replace(LLAMA, layer_settings=(setting,))
    assert found.provenance["layer_settings"]["from"] == "dump"
    values[f"{layer}[1].tr_fflayer_tpl.has_bias"] = True
    with pytest.raises(MappingError, match=r"mlp_bias: the tree has False .*x_layers_1.*\[1\]"):
        infer_model(specs("Llama_gda"), "transformer_lm", values)
    given = {"norm_policy": "pre"}
    del values[f"{layer}[1].tr_fflayer_tpl.has_bias"]
    assert infer_model(specs("Llama_gda"), "transformer_lm", values, given).config == LLAMA


def test_training_only_settings_are_noted():
    values = dump("Llama_gda") | {"model.lm_tpl.entropy_loss_weight": 0.1}
    (note,) = infer_model(specs("Llama_gda"), "transformer_lm", values).notes
    assert note == "model.lm_tpl.entropy_loss_weight: training only, not taken along"


def test_experiment_variables_fill_in():
    values = {"experiment.ATTEN_LOGIT_CAP": 7.0, "experiment.PLH_ID": 55}
    found = infer_model(specs("a_hier_output_dnn"), "efficientids", values)
    assert found.config.backbone.attention_logit_cap == 7.0
    assert found.config.placeholder_item_id == 55
    assert found.provenance["placeholder_item_id"]["from"] == "dump"


@pytest.mark.parametrize(
    ("attention", "head", "found"),
    [(0.0, 0.0, (None, None)), (-1.0, None, (None, None)), (50.0, -30.0, (50.0, 30.0))],
)
def test_caps_that_are_none(attention, head, found):
    """Attention is only capped above 0; in c * tanh(x / c), the sign of c does not matter."""
    stack = "model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl"
    values = dump("Llama_gda") | {
        f"{stack}.tr_atten_tpl.atten_logit_cap": attention,
        "model.lm_tpl.softmax_tpl.soft_cap_logits": head,
    }
    config = infer_model(specs("Llama_gda"), "transformer_lm", values).config
    assert (config.attention_logit_cap, config.final_logit_cap) == found


@pytest.mark.parametrize("entries", [["int64", "int64"], [1, 7]])
def test_layers_with_experts_as_dumps_of_numpy_numbers_have_them(entries):
    """With names of types instead of numbers, or numbers beyond the layers, the tree decides."""
    path = "model.lm_tpl.stacked_transformer_tpl.moe_layers"
    plain = infer_model(specs("MoeGpt_gda"), "transformer_lm", dump("MoeGpt_gda")).config
    assert plain.moe.layers == (1,)
    values = dump("MoeGpt_gda") | {path: entries}
    assert infer_model(specs("MoeGpt_gda"), "transformer_lm", values).config == plain
