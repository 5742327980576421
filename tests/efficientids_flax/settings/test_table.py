"""The table of open settings: every row is a setting, and its values are ones that it can have."""

from dataclasses import replace

import pytest

from efficientids_flax.config import (
    BackboneConfig,
    EfficientIDSConfig,
    MoEConfig,
    RelativeBiasConfig,
)
from efficientids_flax.config.record import dotted_keys
from efficientids_flax.settings import OPEN, OPEN_ITEMS, open_settings, value_at, with_values

PLAIN = BackboneConfig(
    vocab_size=11, num_layers=2, model_dims=8, hidden_dims=6, num_heads=2, num_kv_heads=2,
    head_dim=8,
)  # fmt: skip


def test_rows_are_settings_and_none_stands_twice() -> None:
    for table, config in ((OPEN, BackboneConfig), (OPEN_ITEMS, EfficientIDSConfig)):
        keys = [row.key for row in table]
        assert len(set(keys)) == len(keys)
        assert set(keys) <= set(dotted_keys(config))


@pytest.mark.parametrize("row", OPEN, ids=lambda row: row.key)
def test_values_are_ones_that_some_decoder_has(row) -> None:
    two_norms = replace(PLAIN, norm_policy="primer_hybrid")
    routed = replace(PLAIN, moe=MoEConfig(num_experts=2, layers=(0,), hidden_dims=4))
    biased = replace(PLAIN, relative_bias=RelativeBiasConfig(num_buckets=8))
    beside = replace(PLAIN, parallel_residual=True)
    for value in row.values:
        made = [
            with_values(config, {row.key: value})
            for config in (PLAIN, two_norms, routed, biased, beside)
        ]
        assert any(config is not None for config in made), value


def test_a_value_that_needs_other_parameters_is_none() -> None:
    assert with_values(PLAIN, {"norm_policy": "primer_hybrid"}) is None
    assert with_values(PLAIN, {"query_scaling": "per_dim_scale"}) is None
    assert with_values(PLAIN, {"norm_epsilon": -1.0}) is None


def test_parts_are_made_merged_and_taken_away() -> None:
    turned = with_values(PLAIN, {"rotary": {"pairing": "interleaved"}})
    assert turned is not None
    scaled = with_values(turned, {"rotary.max_timescale": 500_000.0})
    assert scaled is not None
    assert value_at(scaled, "rotary.pairing") == "interleaved"
    other = with_values(scaled, {"rotary": {"pairing": "half_split"}})
    assert other is not None
    assert value_at(other, "rotary.max_timescale") == 500_000.0
    none = with_values(other, {"rotary": None})
    assert none is not None
    assert none.rotary is None
    assert value_at(none, "rotary.pairing") is None


def test_norms_of_a_place_are_open_where_norms_differ() -> None:
    assert not {key for key in open_settings(PLAIN) if key.startswith("norms.")}
    found = with_values(PLAIN, {"norms.final.scale_plus_one": True})
    assert found is not None
    assert found.of_norm("final").norm_scale_plus_one
    assert not found.of_norm("mlp").norm_scale_plus_one
    assert {"norms.final.scale_plus_one", "norms.mlp.scale_plus_one"} <= open_settings(found).keys()
    assert value_at(found, "norms.mlp.scale_plus_one") is None


def test_what_a_model_does_not_have_is_not_open() -> None:
    plain = open_settings(PLAIN)
    assert "activation" in plain
    assert not {"rotary.max_timescale", "moe.gating", "relative_bias.max_distance"} & plain.keys()
    item = EfficientIDSConfig(num_items=5, item_embedding_dim=4, backbone=PLAIN)
    keys = open_settings(item)
    assert "backbone.activation" in keys
    assert "soft_cap_logits" in keys
    assert not {"backbone.final_logit_cap", "output_adapter.activation"} & keys.keys()
