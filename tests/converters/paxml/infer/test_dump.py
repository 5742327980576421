"""The meaning of values in dumps: numbers that mean "off", names of types, texts; real dumps."""

from typing import Any

import pytest

from converters.errors import UnsupportedModelError
from converters.paxml.infer.dump import OFF, open_dump
from converters.paxml.infer.hparams import Symbol, parse_value
from converters.paxml.infer.model import Inferred, infer_model
from efficientids_flax.config import BackboneConfig
from tests.converters.paxml.recorded_jobs import dump, specs

SOFTMAX = "model.lm_tpl.softmax_tpl."
STACK = "model.lm_tpl.stacked_transformer_tpl."
LAYER = f"{STACK}transformer_layer_params_tpl."
ATTENTION = f"{LAYER}tr_atten_tpl."


def inferred(name: str, changes: dict[str, Any], **flags: Any) -> Inferred:
    values = dump(name)
    assert changes.keys() <= values.keys()
    return infer_model(specs(name), "transformer_lm", values | changes, flags)


def settings(name: str, changes: dict[str, Any], **flags: Any) -> BackboneConfig:
    config = inferred(name, changes, **flags).config
    assert isinstance(config, BackboneConfig)
    return config


@pytest.mark.parametrize("off", [0, 0.0, -1.0, -50, None])
@pytest.mark.parametrize(
    ("path", "key"),
    [
        (f"{ATTENTION}atten_logit_cap", "attention_logit_cap"),
        (f"{SOFTMAX}label_smoothing_prob", "label_smoothing"),
        (f"{SOFTMAX}z_loss_weight", "z_loss_weight"),
    ],
)
def test_what_is_used_above_zero_alone(path: str, key: str, off: float | None):
    assert getattr(settings("Llama_gda", {path: off}), key) == OFF[key]


@pytest.mark.parametrize(
    ("value", "cap"), [(None, None), (0.0, None), (-30.0, 30.0), (30, 30.0), ("30.0", 30.0)]
)
def test_the_softmax_caps_by_any_number_but_zero(value: Any, cap: float | None):
    assert settings("Llama_gda", {f"{SOFTMAX}soft_cap_logits": value}).final_logit_cap == cap


@pytest.mark.parametrize("droppath", [0.0, -1.0, None])
def test_a_droppath_that_is_off_is_not_worth_a_note(droppath: float | None):
    assert not inferred("Llama_gda", {f"{STACK}residual_droppath_prob": droppath}).notes
    assert inferred("Llama_gda", {f"{STACK}residual_droppath_prob": 0.1}).notes


@pytest.mark.parametrize("text", ["int64", "float32", "bool_", "ArrayImpl", "bfloat16"])
def test_names_of_types_stand_for_no_value(text: str):
    """`nested_struct_to_text` writes them in place of numbers of NumPy and JAX."""
    value = parse_value(text)
    opened = open_dump({"model.x": value, "model.y": ["int64", 3], "model.z": [1, 3]})
    assert opened.unwritten("model.x")
    assert opened.unwritten("model.y")
    assert not opened.unwritten("model.z")
    assert opened.get("model.x", 7) == 7
    assert not opened.has("model.x")


def test_what_the_tree_has_needs_no_value():
    changes = {f"{STACK}hidden_dims": Symbol("", "int64"), f"{STACK}num_heads": Symbol("", "int32")}
    assert inferred("Llama_gda", changes).config == inferred("Llama_gda", {}).config


def test_what_nothing_has_is_asked_for():
    changes = {f"{ATTENTION}atten_logit_cap": Symbol("", "float32")}
    with pytest.raises(UnsupportedModelError, match=r"holds float32, which dumps do not write out"):
        infer_model(
            specs("Llama_gda"),
            "transformer_lm",
            {k: v for k, v in (dump("Llama_gda") | changes).items() if "ATTEN_LOGIT" not in k},
        )
    assert settings("Llama_gda", changes, attention_logit_cap=5.0).attention_logit_cap == 5.0


QUANTIZED = f"{LAYER}tr_fflayer_tpl.fflayer_tpl.linear_tpl.quantization."


@pytest.mark.parametrize("kind", ["fq", "aqt", "fq_vn"])
def test_weights_that_training_rounds_are_not_ours(kind: str):
    values = {f"{QUANTIZED}mode": "training", f"{QUANTIZED}quantization_type": kind}
    with pytest.raises(UnsupportedModelError, match=f"quantization_type is {kind} in training"):
        infer_model(specs("Llama_gda"), "transformer_lm", dump("Llama_gda") | values)


@pytest.mark.parametrize(("mode", "kind"), [("inference", "fq"), ("training", "ptq")])
def test_weights_that_are_not_rounded_while_they_are_used(mode: str, kind: str):
    values = {f"{QUANTIZED}mode": mode, f"{QUANTIZED}quantization_type": kind}
    served = {f"{QUANTIZED}act_params.precision": 8}
    told = [
        infer_model(specs("Llama_gda"), "transformer_lm", dump("Llama_gda") | some).notes
        for some in (values, values | served)
    ]
    assert not told[0]
    assert "act_params.precision is 8" in told[1][0]


def test_texts_of_numbers_and_truth_values():
    opened = open_dump({"a": "4", "b": "1e-5", "c": "True", "d": "NoneType", "e": "4", "f": "pre"})
    assert opened.get("a", 0) == 4
    assert opened.get("b", 0.0) == 1e-5
    assert opened.get("c", False) is True
    assert opened.get("d", 1) is None
    assert opened.get("e", "text") == "4"
    assert opened.get("f", None) == "pre"
