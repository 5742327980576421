"""What dumps and trees of the recorded jobs say about their models."""

import re

import pytest

from converters.errors import MappingError
from converters.paxml.infer.hparams import Symbol, parse_sections
from converters.paxml.infer.model import infer_model
from converters.paxml.infer.post_init import as_model_params
from efficientids_flax.config import (
    AdapterConfig,
    EfficientIDSConfig,
    MoEConfig,
    RotaryConfig,
)
from tests.converters.paxml.recorded_jobs import (
    JOBS,
    LANGUAGE_MODELS,
    LLAMA,
    RECOMMENDERS,
    dump,
    specs,
)

ACTIVATION = {"ReLU": "relu", "GELU": "gelu_tanh", "SiLU": "silu"}


def last(class_text: str) -> str:
    return re.sub(r"\W*$", "", class_text).rpartition(".")[2]


def expected_of_constants(constants: dict) -> dict:
    """The settings that `paxml.tasks.lm.model_params` derives from an experiment's constants."""
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
        "moe": MoEConfig(4, (1,), 64, activation="gelu_tanh", residual_weight=1.0).to_dict(),
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
        == "assumed"
    )


def test_query_scale_of_the_model_width():
    """Unless configured otherwise, Praxis scales by (D / N)^-0.5, also for heads of other width."""
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


def test_built_layers_that_differ_have_a_template_each():
    """Differences only in names or rates share one template; different activations do not."""
    layer = "lm.transformer.x_layers_{}._hparams.{}"
    built = {
        layer.format(number, name): value
        for number in (0, 1)
        for name, value in {"name": f"layer_{number}", "norm_policy": "pre"}.items()
    }
    stack = "model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl"
    assert as_model_params(built)[f"{stack}.norm_policy"] == "pre"
    found = as_model_params(built | {layer.format(1, "norm_policy"): "post"})
    assert f"{stack}.norm_policy" not in found
    assert [found[f"{stack}[{number}].norm_policy"] for number in (0, 1)] == ["pre", "post"]
