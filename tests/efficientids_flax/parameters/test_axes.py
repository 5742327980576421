"""The table of a configuration's parameters, against trees written by hand from Praxis' layers."""

from dataclasses import replace

import pytest

from efficientids_flax.config import AdapterConfig, BackboneConfig, EfficientIDSConfig, MoEConfig
from efficientids_flax.parameters import (
    ATTENTION,
    CONDITIONS,
    MLP,
    MOE,
    NORMS,
    SHARED,
    TOP,
    parameter_shapes,
    refuse_quantized,
    shape_problems,
)

LLAMA = BackboneConfig(
    vocab_size=96,
    num_layers=2,
    model_dims=32,
    hidden_dims=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    tied_embeddings=False,
    gated_mlp=True,
)
LAYER = {
    "attention/query/kernel": (32, 4, 8),
    "attention/key/kernel": (32, 2, 8),
    "attention/value/kernel": (32, 2, 8),
    "attention/out/kernel": (32, 4, 8),
    "attention_norm/scale": (32,),
    "mlp_norm/scale": (32,),
    "mlp/up/kernel": (32, 64),
    "mlp/gate/kernel": (32, 64),
    "mlp/down/kernel": (64, 32),
}
TABLES = {
    "embedder/embedding": (96, 32),
    "final_norm/scale": (32,),
    "lm_head/kernel": (32, 96),
}


def test_separate_layers():
    layers = {f"layers_{i}/{path}": shape for i in range(2) for path, shape in LAYER.items()}
    assert parameter_shapes(LLAMA) == TABLES | layers


def test_scanned_layers_have_a_leading_axis():
    layers = {f"layers/{path}": (2, *shape) for path, shape in LAYER.items()}
    assert parameter_shapes(replace(LLAMA, scan_layers=True)) == TABLES | layers


def test_blocks_of_layers_with_experts_every_second():
    config = replace(
        LLAMA,
        num_layers=6,
        scan_layers=True,
        layers_per_block=2,
        moe=MoEConfig(num_experts=5, layers=(1, 3, 5), hidden_dims=16),
    )
    shapes = parameter_shapes(config)
    assert shapes["layers/block_0/mlp/up/kernel"] == (3, 32, 64)
    assert shapes["layers/block_1/moe/up/kernel"] == (3, 5, 32, 16)
    assert shapes["layers/block_1/moe/router/kernel"] == (3, 32, 5)
    assert "layers/block_1/mlp/up/kernel" not in shapes
    assert "layers/block_0/moe/up/kernel" not in shapes


@pytest.mark.parametrize(
    ("changes", "added", "removed"),
    [
        (
            {"fused_qkv": True, "num_kv_heads": 4, "qkv_bias": True},
            {"attention/qkv/kernel": (3, 32, 4, 8), "attention/qkv/bias": (3, 4, 8)},
            {"attention/query/kernel", "attention/key/kernel", "attention/value/kernel"},
        ),
        (
            {"multi_query": True, "num_kv_heads": 1, "qkv_bias": True},
            {
                "attention/key/kernel": (32, 8),
                "attention/value/kernel": (32, 8),
                "attention/query/bias": (4, 8),
                "attention/key/bias": (8,),
                "attention/value/bias": (8,),
            },
            set(),
        ),
        ({"query_scaling": "per_dim_scale"}, {"attention/per_dim_scale": (8,)}, set()),
        (
            {"norm_policy": "primer_hybrid"},
            {
                f"{when}_{what}_norm/scale": (32,)
                for when in ("pre", "post")
                for what in ("attention", "mlp")
            },
            {"attention_norm/scale", "mlp_norm/scale"},
        ),
        (
            {"mlp_bias": True, "gated_mlp": False},
            {"mlp/up/bias": (64,), "mlp/down/bias": (32,)},
            {"mlp/gate/kernel"},
        ),
    ],
)
def test_options_of_a_layer(changes, added, removed):
    shapes = parameter_shapes(replace(LLAMA, num_layers=1, **changes))
    wanted = {path: shape for path, shape in (LAYER | added).items() if path not in removed}
    assert shapes == TABLES | {f"layers_0/{path}": shape for path, shape in wanted.items()}


def test_kernels_stored_output_first():
    shapes = parameter_shapes(replace(LLAMA, num_layers=1, kernel_axes="out_in"))
    own = {
        "attention/query/kernel": (4, 8, 32),
        "attention/key/kernel": (2, 8, 32),
        "attention/value/kernel": (2, 8, 32),
        "mlp/up/kernel": (64, 32),
        "mlp/gate/kernel": (64, 32),
        "mlp/down/kernel": (32, 64),
    }
    layer = {f"layers_0/{path}": shape for path, shape in (LAYER | own).items()}
    assert shapes == TABLES | {"lm_head/kernel": (96, 32)} | layer
    fused = replace(LLAMA, num_kv_heads=4, fused_qkv=True, kernel_axes="out_in")
    assert parameter_shapes(fused)["layers_0/attention/qkv/kernel"] == (3, 4, 8, 32)


def test_recommender_puts_the_decoder_below_pretrained_lm():
    config = EfficientIDSConfig(
        backbone=replace(LLAMA, tied_embeddings=True),
        num_items=61,
        item_embedding_dim=16,
        num_clusters=8,
        input_adapter=AdapterConfig(num_layers=2, hidden_dims=24),
        output_adapter=AdapterConfig(num_layers=1),
        input_adapter_everywhere=False,
        trainable_cluster_embeddings=True,
    )
    shapes = parameter_shapes(config)
    own = {path: shape for path, shape in shapes.items() if not path.startswith("pretrained_lm/")}
    assert own == {
        "item_embedding/kernel": (16, 61),
        "cluster_embedding/kernel": (16, 8),
        "item_input_adapter/layers_0/kernel": (16, 24),
        "item_input_adapter/layers_0/bias": (24,),
        "item_input_adapter/layers_1/kernel": (24, 32),
        "item_input_adapter/layers_1/bias": (32,),
        "item_output_adapter/layers_0/kernel": (32, 16),
        "item_output_adapter/layers_0/bias": (16,),
    }
    assert "pretrained_lm/lm_head/kernel" in shapes
    assert "pretrained_lm/embedder/embedding" not in shapes
    fixed = replace(config, trainable_cluster_embeddings=False)
    assert "cluster_embedding/kernel" not in parameter_shapes(fixed)


def test_every_difference_is_a_problem():
    shapes = parameter_shapes(LLAMA)
    assert shape_problems(LLAMA, shapes) == []
    found = dict(shapes)
    del found["layers_1/mlp_norm/scale"]
    found["layers_0/mlp/up/bias"] = (64,)
    found["lm_head/kernel"] = (96, 32)
    assert shape_problems(LLAMA, found) == [
        "layers_0/mlp/up/bias: the configuration has no such parameter",
        "layers_1/mlp_norm/scale: missing, [32] expected",
        "lm_head/kernel: found [96, 32], [32, 96] expected",
    ]


def test_rows_use_known_conditions_and_no_condition_is_idle():
    rows = (*TOP, *ATTENTION, *NORMS, *MLP, *MOE, *SHARED)
    used = {word for row in rows for word in row.when.split()}
    assert used == set(CONDITIONS)


def test_scales_of_quantized_weights_are_refused():
    refuse_quantized("out", parameter_shapes(LLAMA))
    names = [*parameter_shapes(LLAMA), "layers_0/mlp/up/kernel_scale", "embedder/embedding_scale"]
    with pytest.raises(ValueError, match=r"up/kernel_scale, 2 in all.*with --dequantize"):
        refuse_quantized("out", names)
