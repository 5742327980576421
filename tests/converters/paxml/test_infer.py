import math
import re
from dataclasses import replace

import pytest
from recorded_jobs import JOBS, LANGUAGE_MODELS, RECOMMENDERS, dump, specs

from converters.errors import MappingError
from converters.paxml.hparams import Symbol, parse_sections
from converters.paxml.infer import infer_model
from converters.paxml.post_init import as_model_params
from efficientids_flax.config import (
    AdapterConfig,
    BackboneConfig,
    EfficientIDSConfig,
    MoEConfig,
    RelativeBiasConfig,
    RotaryConfig,
)

ACTIVATION = {"ReLU": "relu", "GELU": "gelu_tanh", "SiLU": "silu"}


def last(class_text: str) -> str:
    return re.sub(r"\W*$", "", class_text).rpartition(".")[2]


def expected_of_constants(constants: dict) -> dict:
    """What `paxml.tasks.lm.model_params` makes of an experiment's constants."""
    pmap = "PERCORE_BATCH_SIZE" in constants
    rotary = constants.get("USE_ROTARY_POSITION_EMB", False)
    return {
        "num_layers": constants["NUM_LAYERS"],
        "vocab_size": constants["VOCAB_SIZE"],
        "model_dims": constants["MODEL_DIMS"],
        "hidden_dims": constants["HIDDEN_DIMS"],
        "num_heads": constants["NUM_HEADS"],
        "head_dim": constants.get(
            "DIMS_PER_HEAD", constants["MODEL_DIMS"] // constants["NUM_HEADS"]
        ),
        "norm_policy": constants.get("NORM_POLICY", "pre"),
        "fused_qkv": constants.get("COMBINE_QKV", False),
        "activation": ACTIVATION[last(constants["ACTIVATION_CLS"])],
        "gated_mlp": constants["USE_GATED_ACTIVATION"],
        "tied_embeddings": not constants.get("SEPARATE_EMBEDDING", False),
        "attention_logit_cap": constants["ATTEN_LOGIT_CAP"] or None,
        "final_logit_cap": constants.get("SOFTMAX_CAP_LOGITS", 0.0) or None,
        "dtype": "float32" if pmap else last(constants["FPROP_DTYPE"]),
        "residual_dropout": constants["DROPOUT_PROB"],
        "rotary": RotaryConfig() if rotary else None,
        "scan_layers": constants["USE_REPEATED_LAYER"] or constants.get("NUM_STAGES", 0) > 0,
        "position_embedding": "none"
        if rotary
        else "learned"
        if constants.get("TRAINABLE_POSITION_EMB")
        else "sinusoidal",
    }


@pytest.mark.parametrize("name", [n for n in LANGUAGE_MODELS if JOBS[n]["config"]])
def test_every_recorded_job_gives_its_experiments_constants(name):
    config = infer_model(specs(name), "transformer_lm", dump(name)).config
    expected = expected_of_constants(JOBS[name]["config"])
    assert {key: getattr(config, key) for key in expected} == expected


LLAMA = BackboneConfig(
    vocab_size=96,
    num_layers=2,
    model_dims=32,
    hidden_dims=64,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    norm="rms_norm",
    norm_scale_in_float32=True,
    tied_embeddings=False,
    rotary=RotaryConfig("half_split"),
    gated_mlp=True,
    activation="silu",
)
GPT = LLAMA.to_dict() | {
    "norm": "layer_norm",
    "norm_bias": True,
    "norm_scale_in_float32": False,
    "norm_scale_plus_one": True,
    "tied_embeddings": True,
    "embedding_scale": "sqrt_dim",
    "position_embedding": "sinusoidal",
    "rotary": None,
    "query_scaling": "per_dim_scale",
    "gated_mlp": False,
    "activation": "gelu_tanh",
    "mlp_bias": True,
    "lm_head_bias": True,
    "attention_logit_cap": 50.0,
    "final_logit_cap": 30.0,
}
WHOLE = {
    "Llama_gda": LLAMA.to_dict(),
    "LlamaPadded_gda": LLAMA.to_dict() | {"vocab_size": 90},
    "LlamaRmsPlusOne_gda": LLAMA.to_dict() | {"norm_scale_plus_one": True},
    "LlamaCombined_gda": LLAMA.to_dict() | {"fused_qkv": True},
    "LlamaGqa_ocdbt": LLAMA.to_dict() | {"num_kv_heads": 2},
    "LlamaBf16_gda": LLAMA.to_dict() | {"dtype": "bfloat16", "param_dtype": "bfloat16"},
    "LlamaRepeat_paxml100": LLAMA.to_dict() | {"num_layers": 3, "scan_layers": True},
    "PalmLike_gda": LLAMA.to_dict()
    | {
        "tied_embeddings": True,
        "embedding_scale": "sqrt_dim",
        "norm_policy": "primer_hybrid",
        "num_kv_heads": 1,
        "multi_query": True,
        "final_logit_cap": 30.0,
    },
    "GptLearned_gda": GPT
    | {
        "position_embedding": "learned",
        "max_positions": 64,
        "fused_qkv": True,
        "qkv_bias": True,
        "attention_out_bias": True,
        "attention_logit_cap": None,
        "final_logit_cap": None,
    },
    "Pipe2_gda": GPT | {"num_layers": 4, "scan_layers": True, "layers_per_block": 2},
    "PmapGpt_flax": GPT | {"activation": "relu", "final_logit_cap": None},
    "MoeGpt_gda": GPT
    | {
        "fused_qkv": True,
        "moe": MoEConfig(4, (1,), 64, activation="gelu_tanh").to_dict(),
    },
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_configurations(name):
    found = infer_model(specs(name), "transformer_lm", dump(name)).config.to_dict()
    assert found == WHOLE[name]


@pytest.mark.parametrize("name", [n for n in LANGUAGE_MODELS if len(JOBS[n]["files"]) == 3])
def test_dump_of_built_layers_says_the_same(name):
    text = JOBS[name]["files"]["post_init_model_params.txt"]
    built = as_model_params(parse_sections(text, name)[0])
    found = infer_model(specs(name), "transformer_lm", built)
    assert found.config == infer_model(specs(name), "transformer_lm", dump(name)).config
    assert found.provenance["norm_epsilon"]["from"] == "dump"
    assert found.provenance["activation"]["from"] == "dump"


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_recommenders_give_their_experiments_constants(name):
    constants = JOBS[name]["experiment"]
    config = infer_model(specs(name), "efficientids", dump(name)).config
    assert isinstance(config, EfficientIDSConfig)
    llama = name == "i_llama"
    layers, hidden = constants["ITEM_DNN_MLP_NUM_LAYERS"], constants["ITEM_DNN_MLP_HIDDEN_DIMS"]
    adapter = AdapterConfig(layers, hidden if layers > 1 else None)
    full = constants["FULL_SOFTMAX"]
    assert config == EfficientIDSConfig(
        backbone=config.backbone,
        num_items=constants["ITEM_VOCAB_SIZE"],
        item_embedding_dim=constants["ITEM_EMBEDDING_SIZE"],
        num_clusters=constants["NUM_ITEM_CLUSTERS"],
        input_adapter=adapter,
        output_adapter=None if constants["EVERYWHERE"] else adapter,
        input_adapter_everywhere=constants["EVERYWHERE"],
        trainable_cluster_embeddings=constants["TRAINABLE_CLUSTER_EMBEDDINGS"] and not full,
        full_softmax=full,
        use_correction=constants["CORRECTION"],
        soft_cap_logits=constants["SOFT_CAP_LOGITS"] or None,
        label_smoothing=constants["LABEL_SMOOTHING"],
        second_label_smoothing=constants["SECOND_LABEL_SMOOTHING"],
        label_smoothing_in_eval=constants["SMOOTH_EVAL"],
        z_loss_weight=constants["Z_LOSS"],
        placeholder_item_id=constants["PLH_ID"],
    )
    backbone = config.backbone
    assert backbone.rotary == (RotaryConfig("interleaved") if llama else None)
    assert (backbone.norm, backbone.norm_epsilon, backbone.norm_scale_plus_one) == (
        ("rms_norm", 1e-5, False) if llama else ("layer_norm", 1e-6, True)
    )
    assert backbone.query_scaling == ("inverse_sqrt_head_dim" if llama else "per_dim_scale")
    assert backbone.embedding_scale == ("none" if llama else "sqrt_dim")
    assert backbone.attention_logit_cap == (None if llama else 50.0)
    assert backbone.final_logit_cap is None
    assert backbone.scan_layers == (name != "g_stacked_layers")


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_recommenders_without_a_dump_take_the_published_defaults(name):
    told = infer_model(specs(name), "efficientids", dump(name))
    alone = infer_model(specs(name), "efficientids")
    ours, theirs = alone.config.to_dict()["backbone"], told.config.to_dict()["backbone"]
    # i4 is the one with another activation than its kind
    assert {k for k in ours if ours[k] != theirs[k]} == (
        {"activation"} if name[:2] == "i4" else set()
    )
    assert (
        alone.provenance["backbone.rotary.pairing" if name == "i_llama" else "backbone.rotary"][
            "from"
        ]
        == "default"
    )


def test_provenance_names_tree_dump_flag_and_default():
    flags = {"norm_epsilon": "1e-4", "optimizer.beta1": 0.9, "rotary.pairing": "interleaved"}
    found = infer_model(specs("Llama_gda"), "transformer_lm", dump("Llama_gda"), flags)
    assert {key: value["from"] for key, value in found.provenance.items()} | {
        "num_heads": "tree",
        "activation": "dump",
        "norm_epsilon": "flag",
        "logits_divisor": "default",
        "rotary.max_timescale": "dump",
        "rotary.pairing": "flag",
    } == {key: value["from"] for key, value in found.provenance.items()}
    assert found.provenance["norm_epsilon"]["value"] == found.config.norm_epsilon == 1e-4
    assert {key for key in found.provenance if "." not in key} | {"rotary"} == set(
        found.config.to_dict()
    )


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


def test_layers_of_a_template_list_must_agree():
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
    with pytest.raises(MappingError, match=r"\[1\]\.norm_policy is post and pre in other layers"):
        infer_model(specs("Llama_gda"), "transformer_lm", values)


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


def test_query_scale_of_the_model_width():
    """Praxis scales by (D / N)^-0.5 unless told otherwise, also where the head width is another."""
    layer = "model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl.tr_atten_tpl"
    stack = "model.lm_tpl.stacked_transformer_tpl"
    wide = {
        f"x_layers_{i}/self_attention/{name}/w": (32, 4, 16)
        for i in (0, 1)
        for name in ("query", "key", "value", "post")
    }
    values = dump("Llama_gda") | {f"{stack}.dim_per_head": 16}
    found = infer_model(specs("Llama_gda", **wide), "transformer_lm", values).config
    assert found.query_scaling == "inverse_sqrt_head_dim"
    values[f"{layer}.scale_query_by_dim_per_head"] = False
    found = infer_model(specs("Llama_gda", **wide), "transformer_lm", values).config
    assert found.query_scaling == pytest.approx(8**-0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x_layers_0/self_attention/post/w": (32, 8, 4)}, r"post/w \[32, 8, 4\]: expected \[D, N"),
        ({"x_layers_0/self_attention/value/w": (32, 2, 8)}, r"value/w \[32, 2, 8\]: expected \[32"),
        ({"x_layers_1/self_attention/query/w": None}, "x_layers_1/self_attention/query/w: missing"),
        ({"x_layers_1/ff_layer/ffn_layer1/linear/w": (32, 60)}, "hidden_dims: .* gives 64, .* 60"),
        ({"softmax/logits_ffn/linear/w": (32,)}, r"linear/w \[32\]: expected 2 axes"),
        (
            {"mdl_vars/params/lm/final_ln/bias": (32,)},
            "norm_bias: .*final_ln/bias gives True, .* False",
        ),
    ],
)
def test_trees_that_contradict_themselves(changes, sentence):
    with pytest.raises(MappingError, match=sentence):
        infer_model(specs("Llama_gda", **changes), "transformer_lm")


@pytest.mark.parametrize(
    ("inner", "lead"),
    [("repeat/sub/", (3,)), ("pipeline/body/", (3,)), ("pipeline/body/repeat/sub/", (3, 2))],
)
def test_blocks_of_several_layers(inner, lead):
    """Two layers a block, the second one with experts: they repeat with the block."""
    tree = {}
    for path, spec in specs("MoeGpt_gda").items():
        place = path.replace("transformer/", f"transformer/{inner}")
        tree[place] = replace(spec, shape=(*lead, *spec.shape)) if place != path else spec
    stack = "model.lm_tpl.stacked_transformer_tpl"
    values = {}
    outer = {"repeat": ("block", "x_times"), "pipeline": ("pipeline_stage", "num_pipeline_stages")}
    names = [outer[part] for part in inner.split("/") if part in outer]
    nested = ".".join([stack, *(name for name, _ in names)])
    for path, value in dump("MoeGpt_gda").items():
        values[path.replace(stack, nested)] = value
    place = stack
    for (name, times), size in zip(names, lead, strict=True):
        values |= {f"{place}.cls": Symbol("", "Outer"), f"{place}.{times}": size}
        place = f"{place}.{name}"
    found = infer_model(tree, "transformer_lm", values).config
    blocks = math.prod(lead)
    assert (found.num_layers, found.scan_layers, found.layers_per_block) == (2 * blocks, True, 2)
    assert found.moe is not None
    assert found.moe.layers == tuple(range(1, 2 * blocks, 2))
    with pytest.raises(MappingError, match="num_layers: the tree has"):
        infer_model(tree, "transformer_lm", values | {f"{stack}.{names[0][1]}": 5})


def test_layers_with_gaps_and_none_at_all():
    tree = specs("Llama_gda")
    gap = {path.replace("x_layers_1", "x_layers_2"): spec for path, spec in tree.items()}
    with pytest.raises(MappingError, match=r"layers \[0, 2\] have gaps"):
        infer_model(gap, "transformer_lm")
    none = {path: spec for path, spec in tree.items() if "x_layers" not in path}
    with pytest.raises(MappingError, match="no layer"):
        infer_model(none, "transformer_lm")


@pytest.mark.parametrize("kind", ["causal", "prefix", "bidirectional"])
def test_the_models_own_type_rules(kind):
    """`LanguageModel` overwrites its language model's type when it is built."""
    values = dump("Llama_gda") | {"model.model_type": kind, "model.lm_tpl.model_type": "causal"}
    found = infer_model(specs("Llama_gda"), "transformer_lm", values)
    assert found.config.attention_mask == kind


def test_local_attention_is_a_sliding_window():
    layer = "model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl.tr_atten_tpl"
    values = dump("Llama_gda") | {
        f"{layer}.cls": Symbol("praxis.layers.attentions", "LocalSelfAttention"),
        f"{layer}.left_context": 5,
    }
    assert infer_model(specs("Llama_gda"), "transformer_lm", values).config.sliding_window == 5
    values["model.model_type"] = "bidirectional"
    with pytest.raises(MappingError, match=r"right_context.*a window of a bidirectional model"):
        infer_model(specs("Llama_gda"), "transformer_lm", values)
