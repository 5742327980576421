"""Trees that contradict themselves, and layers in blocks."""

import math
from dataclasses import replace

import pytest

from converters.errors import MappingError
from converters.paxml.infer.hparams import Symbol
from converters.paxml.infer.model import infer_model
from efficientids_flax.config import BackboneConfig
from tests.converters.paxml.recorded_jobs import dump, specs


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x_layers_0/self_attention/post/w": (32, 8, 4)}, r"post/w \[32, 8, 4\]: expected \[D, N"),
        ({"x_layers_0/self_attention/value/w": (32, 2, 8)}, r"value/w \[32, 2, 8\]: expected \[32"),
        ({"x_layers_1/self_attention/query/w": None}, "x_layers_1/self_attention/query/w: missing"),
        (
            {"x_layers_1/ff_layer/ffn_layer1/linear/w": (32, 60)},
            r"x_layers_1/ff_layer/ffn_layer2/linear/w \[64, 32\]: expected \[F, D\] = \[60, 32\]",
        ),
        (
            {
                "x_layers_1/ff_layer/ffn_layer1/linear/w": (30, 64),
                "x_layers_1/ff_layer/ffn_layer2/linear/w": (64, 30),
            },
            "model_dims: .* gives 32, .* gives 30",
        ),
        ({"softmax/logits_ffn/linear/w": (32,)}, r"linear/w \[32\]: expected 2 axes"),
    ],
)
def test_trees_that_contradict_themselves(changes, sentence):
    with pytest.raises(MappingError, match=sentence):
        infer_model(specs("Llama_gda", **changes), "transformer_lm")


def test_layers_of_a_tree_may_differ():
    """Without a dump: the second layer has a LayerNorm, no gate, biases, and per-dim scales."""
    layer = "mdl_vars/params/lm/transformer/x_layers_1/"
    changes = {
        f"{layer}layer_norm/bias": (32,),
        f"{layer}ff_layer/ffn_layer1_gate/linear/w": None,
        f"{layer}ff_layer/ffn_layer1/bias/b": (64,),
        f"{layer}ff_layer/ffn_layer2/bias/b": (32,),
        f"{layer}self_attention/per_dim_scale/per_dim_scale": (8,),
    }
    found = infer_model(specs("Llama_gda", **changes), "transformer_lm")
    plain = infer_model(specs("Llama_gda"), "transformer_lm").config
    assert isinstance(found.config, BackboneConfig)
    assert found.config.of_layer(0) == plain
    own = found.config.of_layer(1)
    assert (own.norm, own.norm_bias, own.gated_mlp, own.mlp_bias) == (
        "layer_norm",
        True,
        False,
        True,
    )
    assert own.query_scaling == "per_dim_scale"
    assert {setting.layers for setting in found.config.layer_settings} == {(1,)}
    assert found.provenance["layer_settings"]["from"] == "tree"


@pytest.mark.parametrize(
    ("inner", "lead"),
    [("repeat/sub/", (3,)), ("pipeline/body/", (3,)), ("pipeline/body/repeat/sub/", (3, 2))],
)
def test_blocks_of_several_layers(inner, lead):
    """Two layers per block, the second one with experts, which repeat with the block."""
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
