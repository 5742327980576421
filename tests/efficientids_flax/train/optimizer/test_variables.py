"""Names of PAXml's variables, against the tables of the converter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converters.rules import efficientids, transformer_lm
from converters.rules.transformer_lm import LayerForm
from efficientids_flax.config import (
    AdapterConfig,
    BackboneConfig,
    EfficientIDSConfig,
    MoEConfig,
    RelativeBiasConfig,
)
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.train.optimizer.variables import (
    Variable,
    column,
    map_variables,
    variables_of,
)

PLAIN = BackboneConfig(
    vocab_size=40,
    num_layers=4,
    model_dims=16,
    hidden_dims=24,
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    norm="layer_norm",
    norm_bias=True,
    tied_embeddings=False,
    position_embedding="learned",
    max_positions=20,
    qkv_bias=True,
    attention_out_bias=True,
    query_scaling="per_dim_scale",
    relative_bias=RelativeBiasConfig(num_buckets=8),
    gated_mlp=True,
    mlp_bias=True,
    lm_head_bias=True,
)
HYBRID = replace(
    PLAIN, norm_policy="primer_hybrid", fused_qkv=True, moe=MoEConfig(4, (1, 3), 12, gated=True)
)
BLOCKS = replace(HYBRID, scan_layers=True, layers_per_block=2)
CASES = {
    "separate": (PLAIN, LayerForm("separate", 1)),
    "experts": (HYBRID, LayerForm("separate", 1)),
    "repeat": (replace(PLAIN, scan_layers=True), LayerForm("repeat", 1)),
    "blocks": (BLOCKS, LayerForm("blocks", 2)),
}


def sources(rules: Any) -> dict[str, str]:
    """Our path -> path below `params/`, of the rules with their numbers and choices filled in."""
    found = {}
    for rule in rules:
        for number in range(4):
            for choice in ("scale", "bias"):
                filled = [
                    text.replace("{i}", str(number))
                    .replace("{j}", str(number))
                    .replace("{scale|bias}", choice)
                    for text in (rule.target, rule.source)
                ]
                found[filled[0]] = filled[1]
    return found


@pytest.mark.parametrize("name", CASES)
def test_names_are_those_that_the_converter_reads(name: str):
    model, form = CASES[name]
    wanted, variables = sources(transformer_lm.rules(form)), variables_of(model)
    for path in parameter_shapes(model):
        assert variables(path).name == f"params/{wanted[path]}"


def test_names_of_the_recommender():
    adapter = AdapterConfig(num_layers=2, hidden_dims=8)
    model = EfficientIDSConfig(
        backbone=replace(PLAIN, scan_layers=True),
        num_items=50,
        item_embedding_dim=8,
        num_clusters=5,
        input_adapter=adapter,
        output_adapter=adapter,
        input_adapter_everywhere=False,
        trainable_cluster_embeddings=True,
    )
    wanted = sources(efficientids.rules(LayerForm("repeat", 1)))
    variables = variables_of(model)
    shapes = parameter_shapes(model)
    assert sum("adapter" in path for path in shapes) == 8
    for path in shapes:
        assert variables(path).name == f"params/{wanted[path]}"
        assert variables(path).stacked == path.startswith("pretrained_lm/layers/")


def test_scales_and_biases_of_layer_norm_are_not_regularized():
    variables = variables_of(PLAIN)
    free = {path for path in parameter_shapes(PLAIN) if not variables(path).regularized}
    norms = [f"layers_{i}/{norm}" for i in range(4) for norm in ("attention_norm", "mlp_norm")]
    assert free == {f"{n}/{leaf}" for n in (*norms, "final_norm") for leaf in ("scale", "bias")}
    rms = replace(PLAIN, norm="rms_norm", norm_bias=False)
    assert all(variables_of(rms)(path).regularized for path in parameter_shapes(rms))


@pytest.mark.parametrize(
    ("path", "stacked"),
    [
        ("lm/softmax/logits_ffn/linear/w", 0),
        ("lm/transformer/x_layers_0/ff_layer/gate", 0),
        ("lm/transformer/repeat/sub/x_layers_0/ff_layer/gate", 1),
        ("lm/transformer/pipeline/body/x_layers_0/ff_layer/gate", 1),
        ("lm/transformer/pipeline/body/repeat/sub/x_layers_0/ff_layer/gate", 2),
    ],
)
def test_a_tree_with_paxml_s_own_paths(path: str, stacked: int):
    assert variables_of(None)(path) == Variable(f"params/{path}", stacked, None)
    assert variables_of(None, vectorized=False)(path).stacked == 0


def test_names_that_are_given():
    name = "params/lm/transformer/pipeline/body/x_layers_0/layer_norm/scale"
    variables = variables_of(
        replace(PLAIN, scan_layers=True), True, {"layers/mlp_norm/scale": name}
    )
    assert variables("layers/mlp_norm/scale") == Variable(name, 1, False)
    assert variables("final_norm/scale").name == "params/lm/final_ln/scale"


def test_each_layer_is_a_variable_of_its_own():
    tree = {"layers": {"w": np.arange(6.0).reshape(2, 3)}, "w": np.arange(6.0).reshape(2, 3)}
    found = map_variables(
        lambda variable, values: (values - values.max(), values.max()),
        lambda path: Variable(path, path.startswith("layers/"), None),
        tree,
    )
    assert column(found, 1)["layers"]["w"].tolist() == [2, 5]
    assert column(found, 1)["w"] == 5
    assert column(found, 0)["layers"]["w"].tolist() == [[-2, -1, 0], [-2, -1, 0]]
