import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.config import (
    AdapterConfig,
    BackboneConfig,
    EfficientIDSConfig,
    LayerSetting,
    MoEConfig,
    NormConfig,
    NormPlacesConfig,
    OptimizerConfig,
    RelativeBiasConfig,
    RotaryConfig,
    RotaryScalingConfig,
    ScheduleConfig,
)
from efficientids_flax.config.optimizer import SCHEDULES
from efficientids_flax.config.record import dotted_keys

SIZES = {
    "vocab_size": 96,
    "num_layers": 4,
    "model_dims": 32,
    "hidden_dims": 64,
    "num_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 8,
}


def backbone(**changes):
    return BackboneConfig(**{**SIZES, **changes})


def recommender(**changes):
    sizes = {"backbone": backbone(), "num_items": 9, "item_embedding_dim": 4}
    return EfficientIDSConfig(**{**sizes, **changes})


scalings = st.sampled_from(
    [
        None,
        RotaryScalingConfig("linear", factor=8.0),
        RotaryScalingConfig("llama3", factor=8.0, original_max_positions=64),
    ]
)
LONGROPE = RotaryScalingConfig(
    "longrope", original_max_positions=64, short_factors=(1.0, 2.0), long_factors=(3.0, 4.0)
)
rotaries = (
    st.none()
    | st.just(RotaryConfig(fraction=0.5, scaling=LONGROPE))
    | st.builds(
        RotaryConfig,
        pairing=st.sampled_from(["half_split", "interleaved"]),
        max_timescale=st.floats(2.0, 1e7),
        fraction=st.sampled_from([0.25, 0.5, 1.0]),
        scaling=scalings,
    )
)
backbones = st.builds(
    backbone,
    norm=st.sampled_from(["layer_norm", "rms_norm"]),
    norm_policy=st.sampled_from(["pre", "post", "post_skip", "primer_hybrid"]),
    norm_epsilon=st.floats(1e-9, 1e-2),
    embedding_scale=st.sampled_from(["none", "sqrt_dim"]) | st.floats(0.5, 50.0),
    query_scaling=st.sampled_from(["none", "per_dim_scale"]) | st.floats(0.01, 1.0),
    rotary=rotaries,
    relative_bias=st.none() | st.builds(RelativeBiasConfig, st.integers(2, 64)),
    moe=st.none()
    | st.builds(MoEConfig, st.integers(1, 8), st.just((0, 1, 2, 3)), st.integers(1, 64)),
    scan_layers=st.booleans(),
    attention_logit_cap=st.none() | st.floats(1.0, 100.0),
    layer_types=st.sampled_from([(), ("full",) * 4]),
    activation=st.sampled_from(["relu", "gelu_tanh", "silu"]),
)


def test_a_configuration_that_is_scanned_by_pairs_of_layers():
    made = backbone(scan_layers=True, layers_per_block=2, moe=MoEConfig(4, (1, 3), 64))
    assert BackboneConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@given(backbones)
def test_backbone_round_trip(made):
    again = BackboneConfig.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert hash(again) == hash(made)


@given(
    st.builds(
        EfficientIDSConfig,
        backbone=st.just(backbone()),
        num_items=st.integers(1, 10**7),
        item_embedding_dim=st.integers(1, 512),
        num_clusters=st.none() | st.integers(1, 3000),
        input_adapter=st.builds(AdapterConfig, st.integers(1, 3), st.integers(1, 64)),
        label_smoothing=st.floats(0, 0.5),
        soft_cap_logits=st.none() | st.floats(1.0, 50.0),
        placeholder_item_id=st.none() | st.integers(0, 200),
    )
)
def test_recommender_round_trip(made):
    assert EfficientIDSConfig.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedule_round_trip(kind):
    made = ScheduleConfig(kind)
    assert made.parameters == SCHEDULES[kind]
    optimizer = OptimizerConfig("adam", schedule=made, weight_decay_by_pattern=((".*", 0.1),))
    assert OptimizerConfig.from_dict(json.loads(json.dumps(optimizer.to_dict()))) == optimizer


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        backbone().num_heads = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_unknown_and_missing_keys_name_the_nearest():
    values = backbone().to_dict() | {"num_head": 4}
    del values["vocab_size"]
    with pytest.raises(ValueError) as error:
        BackboneConfig.from_dict(values)
    assert str(error.value) == (
        "BackboneConfig: 2 problems:\n"
        "  num_head: unknown key; did you mean num_heads?\n"
        "  vocab_size: missing"
    )


def test_problems_of_inner_records_are_located():
    values = backbone().to_dict() | {"rotary": {"pairing": "twisted", "fractoin": 1}}
    with pytest.raises(ValueError, match=r"rotary: RotaryConfig.*\n.*fractoin.*mean fraction"):
        BackboneConfig.from_dict(values)


def test_all_problems_at_once():
    with pytest.raises(ValueError) as error:
        backbone(num_layers=0, norm_epsilon=-1.0, input_dropout=1.0)
    assert str(error.value).splitlines() == [
        "BackboneConfig: 3 problems:",
        "  num_layers: expected above 0, found 0",
        "  norm_epsilon: expected above 0, found -1.0",
        "  input_dropout: expected in [0, 1), found 1.0",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_heads": "4"}, "num_heads: expected int, found '4'"),
        ({"num_heads": True}, "num_heads: expected int, found True"),
        ({"norm_bias": 1}, "norm_bias: expected bool, found 1"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon: expected float, found nan"),
        ({"layer_types": "full"}, "layer_types: expected a list of 'full' | 'sliding'"),
        ({"num_kv_heads": 3}, "num_kv_heads: expected a divisor of num_heads = 4, found 3"),
        ({"multi_query": True}, "multi_query: needs num_kv_heads = 1, found 4"),
        ({"fused_qkv": True, "num_kv_heads": 2}, "fused_qkv: needs num_kv_heads = num_heads = 4"),
        ({"norm_bias": True}, "norm_bias: rms_norm has no bias"),
        ({"norms": NormPlacesConfig(mlp=NormConfig(bias=True))}, "norms.mlp: rms_norm has no bias"),
        ({"position_embedding": "learned"}, "max_positions: learned positions need it"),
        ({"rotary": RotaryConfig(fraction=0.4)}, "rotary: the rotated width 3 is odd"),
        ({"rotary": RotaryConfig(fraction=0.1)}, "rotary: the rotated width 0 is too small"),
        (
            {"rotary": RotaryConfig(scaling=LONGROPE)},
            "rotary.scaling.short_factors: expected 4, one for each pair, found 2",
        ),
        (
            {"parallel_residual": True, "norm_policy": "post_skip"},
            "norm_policy: 'post_skip' does not go with parallel_residual",
        ),
        ({"layer_types": ("sliding",) * 4}, "sliding_window: layer_types has sliding layers"),
        ({"layer_types": ("full",)}, "layer_types: expected 4 entries, found 1"),
        ({"layers_per_block": 2}, "layers_per_block: 2 needs scan_layers"),
        ({"scan_layers": True, "layers_per_block": 3}, "expected a divisor of num_layers = 4"),
        ({"moe": MoEConfig(4, (7,), 8)}, r"moe.layers: [7] outside of the 4 layers"),
        ({"no_rotary_layers": (3,), "scan_layers": True}, "no_rotary_layers: must repeat every"),
    ],
)
def test_backbone_problems(changes, sentence):
    with pytest.raises(ValueError) as error:
        backbone(**changes)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MoEConfig(4, (3, 1), 8), "layers: expected ascending layer numbers, found [3, 1]"),
        (lambda: RotaryScalingConfig("yarn"), "original_max_positions: yarn scaling needs it"),
        (lambda: AdapterConfig(2), "hidden_dims: 2 layers need it, found null"),
        (lambda: ScheduleConfig("cosin"), "cosin: unknown kind; did you mean cosine?"),
        (lambda: ScheduleConfig("cosine", {"final": 1}), "parameters: final: unknown key"),
        (
            lambda: ScheduleConfig("cosine", {"total_steps": "9"}),
            "parameters: total_steps: expected a number, found '9'",
        ),
        (lambda: OptimizerConfig("adam", beta2=1.0), "beta2: expected in [0, 1), found 1.0"),
        (
            lambda: OptimizerConfig(
                "adam", clip_gradient_norm_to_value=1.0, clip_gradient_single_norm_to_value=1.0
            ),
            "excludes clip_gradient_norm_to_value",
        ),
        (
            lambda: recommender(input_adapter_everywhere=False),
            "output_adapter: missing",
        ),
        (
            lambda: recommender(output_adapter=AdapterConfig()),
            "output_adapter: expected null",
        ),
        (
            lambda: recommender(trainable_cluster_embeddings=True),
            "num_clusters: a trainable cluster table needs it",
        ),
        (
            lambda: recommender(
                num_clusters=3, trainable_cluster_embeddings=True, full_softmax=True
            ),
            "a full softmax has no cluster table",
        ),
        (
            lambda: recommender(num_items=0, label_smoothing=1.0),
            "num_items: expected above 0, found 0\n  label_smoothing: expected in [0, 1)",
        ),
        (
            lambda: RotaryScalingConfig("dynamic", factor=2.0),
            "original_max_positions: dynamic scaling needs it, found null",
        ),
        (
            lambda: RotaryScalingConfig("linear", factor=2.0, attention_factor=1.5),
            "attention_factor: linear scaling has none",
        ),
        (lambda: RelativeBiasConfig(1), "num_buckets: expected at least 2, found 1"),
        (
            lambda: RelativeBiasConfig(16, max_distance=8),
            "max_distance: expected above the 8 near buckets, found 8",
        ),
        (
            lambda: recommender(soft_cap_logits=-1.0),
            "soft_cap_logits: expected at least 0, found -1.0",
        ),
        (
            lambda: recommender(z_loss_weight=-0.5),
            "z_loss_weight: expected at least 0, found -0.5",
        ),
        (
            lambda: recommender(placeholder_item_id=-1),
            "placeholder_item_id: expected at least 0 or null, found -1",
        ),
    ],
)
def test_problems_of_the_other_records(make, sentence):
    with pytest.raises(ValueError) as error:
        make()
    assert sentence in str(error.value)


def test_dotted_keys_reach_into_records():
    keys = dotted_keys(EfficientIDSConfig)
    assert {"num_items", "backbone.norm_epsilon", "backbone.rotary.scaling.factor"} <= set(keys)


# What each HuggingFace family needs; every one must have its place in the decoder's configuration.
@pytest.mark.parametrize(
    "changes",
    [
        {"embedding_scale": "sqrt_dim", "norm_scale_plus_one": True, "norm_scale_in_float32": True,
         "activation": "gelu_tanh", "gated_mlp": True, "num_kv_heads": 1, "head_dim": 16},  # Gemma
        {"norm_policy": "primer_hybrid", "attention_logit_cap": 50.0, "final_logit_cap": 30.0,
         "query_scaling": 24**-0.5, "sliding_window": 5,
         "layer_types": ("sliding", "full") * 2},  # Gemma2
        {"qk_norm": "per_head", "sliding_window": 5, "layer_types": ("sliding",) * 3 + ("full",),
         "rotary": RotaryConfig(max_timescale=1e6, scaling=RotaryScalingConfig("linear", 8.0)),
         "sliding_rotary": RotaryConfig()},  # Gemma3
        {"norm": "layer_norm", "norm_bias": True, "position_embedding": "learned", "qkv_bias": True,
         "max_positions": 512, "mlp_bias": True, "attention_out_bias": True},  # GPT-2
        {"norm": "layer_norm", "norm_bias": True, "parallel_residual": True, "activation": "gelu",
         "rotary": RotaryConfig(fraction=0.25), "tied_embeddings": False},  # GPT-NeoX
        {"embedding_scale": 12.0, "scale_injected_embeddings": True, "logits_divisor": 8.0,
         "attention_residual_weight": 0.22, "mlp_residual_weight": 0.22,
         "query_scaling": 0.1},  # Granite
        {"norm_policy": "post", "qk_norm": "full", "norm_scale_in_float32": True},  # OLMo2
        {"rotary": RotaryConfig(), "no_rotary_layers": (3,)},  # SmolLM3
        {"sliding_window": 4, "rotary": RotaryConfig(in_float32=False)},  # Mistral
    ],
)  # fmt: skip
def test_huggingface_families_have_their_place(changes):
    made = backbone(**changes)
    assert BackboneConfig.from_dict(made.to_dict()) == made


def test_a_norm_of_its_own_is_the_model_s_otherwise():
    own = NormPlacesConfig(
        final=NormConfig(scale_plus_one=True), mlp=NormConfig("layer_norm", True)
    )
    config = BackboneConfig(**SIZES, norm_epsilon=1e-5, norms=own)
    plain = dataclasses.replace(config, norms=None)
    assert config.of_norm("attention") == config.of_norm("query_key") == plain
    assert config.of_norm("final") == dataclasses.replace(plain, norm_scale_plus_one=True)
    assert config.of_norm("mlp") == dataclasses.replace(plain, norm="layer_norm", norm_bias=True)
    assert BackboneConfig.from_dict(config.to_dict()) == config


def own(layers, key, value):
    return LayerSetting(layers=layers, key=key, value=value)


def test_layers_have_their_own_settings():
    settings = (
        own((1, 3), "activation", "silu"),
        own((1,), "rotary.max_timescale", 300.0),
        own((2,), "rotary", None),
        own((3,), "sliding_window", 5),
    )
    config = backbone(rotary=RotaryConfig(fraction=0.5), layer_settings=settings)
    assert BackboneConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    plain = backbone(rotary=RotaryConfig(fraction=0.5))
    assert config.of_layer(0) == plain
    turned = RotaryConfig(fraction=0.5, max_timescale=300.0)
    assert config.of_layer(1) == dataclasses.replace(plain, activation="silu", rotary=turned)
    assert config.of_layer(2) == dataclasses.replace(plain, rotary=None)
    assert config.of_layer(3) == dataclasses.replace(plain, activation="silu", sliding_window=5)
    assert plain.of_layer(2) is plain
    assert hash(config) == hash(BackboneConfig.from_dict(config.to_dict()))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((own((1,), "activatoin", "silu"),), "activatoin: unknown key; did you mean activation"),
        ((own((1,), "model_dims", 8),), "model_dims cannot differ between layers"),
        ((own((4,), "activation", "silu"),), r"activation: \[4\] outside of the 4 layers"),
        (
            (own((0, 1), "activation", "silu"), own((1,), "activation", "relu")),
            r"activation is set twice for layers \[1\]",
        ),
        ((own((2,), "num_kv_heads", 3),), r"layer 2: BackboneConfig: 1 problem:\s+num_kv_heads"),
        ((own((2,), "norm_epsilon", "small"),), "norm_epsilon: expected float, found 'small'"),
    ],
)
def test_settings_of_layers_that_make_no_sense(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        backbone(layer_settings=settings)


def test_settings_of_scanned_layers_repeat_with_the_block():
    blocks = {"scan_layers": True, "layers_per_block": 2}
    backbone(layer_settings=(own((1, 3), "activation", "silu"),), **blocks)
    with pytest.raises(ValueError, match="activation: must repeat every layers_per_block = 2"):
        backbone(layer_settings=(own((1,), "activation", "silu"),), **blocks)
    with pytest.raises(ValueError, match="expected ascending layer numbers"):
        own((3, 1), "activation", "silu")
