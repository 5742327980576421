"""Which rows a tree may come from, by its leaves and its other marks."""

from dataclasses import replace
from typing import Any

import pytest

from converters.errors import MappingError
from converters.paxml.experiments.match import (
    EXPERIMENTS,
    Evidence,
    chosen,
    contradicted,
    named,
    recognised,
)
from converters.paxml.infer.facts import Fact, Facts

CONVERTED = Evidence(0, (), frozenset({"float16"}), None)
TRAINED = Evidence(9, (), frozenset({"float32"}), "adam")
NOT_SHOWN = (
    "activation", "norm_epsilon", "norm_scale_plus_one", "norm_policy", "parallel_residual",
    "embedding_scale", "attention_logit_cap", "final_logit_cap", "dtype", "attention_mask",
    "sliding_window", "scale_before_logits", "attention_residual_weight", "mlp_residual_weight",
    "z_loss_weight", "label_smoothing", "label_smoothing_in_eval", "input_dropout",
    "attention_dropout", "residual_dropout", "mlp_dropout", "query_scaling", "position_embedding",
    "position_min_timescale", "position_max_timescale",
)  # fmt: skip


def tree_of(name: str, **sizes: int) -> Facts:
    """Facts about the parameters of an experiment's model of these sizes."""
    row = EXPERIMENTS[name]
    facts = Facts()
    for key, value in {**row.model, **row.size, **sizes}.items():
        if key not in NOT_SHOWN and not key.startswith("rotary"):
            facts.add(key, value, "a leaf")
    if row.model["position_embedding"] == "learned":
        facts.add("position_embedding", "learned", "a leaf")
    else:
        facts.excluded["position_embedding"] = Fact("learned", "no leaf")
    if row.model["query_scaling"] == "per_dim_scale":
        facts.add("query_scaling", "per_dim_scale", "a leaf")
    else:
        facts.excluded["query_scaling"] = Fact("per_dim_scale", "no leaf")
    return facts


def found(tree: Facts, evidence: Evidence) -> tuple[Any, list[str]]:
    notes: list[str] = []
    return recognised(tree, evidence, notes), notes


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_is_one_of_those_that_its_own_tree_is_recognised_as(name: str):
    row = EXPERIMENTS[name]
    evidence = replace(TRAINED, optimizer=row.learner.get("name"))
    if row.written_as is not None:
        evidence = Evidence(0, row.step_shape or (), frozenset({row.written_as}), None)
    told, notes = found(tree_of(name), evidence)
    assert told is not None
    assert told.origin.startswith("experiment ")
    assert len(notes) == 1
    assert notes[0].startswith("recognised as ")
    # The common settings are those of this row; only differing settings of the model are lost.
    assert told.model.items() <= {**row.model, **row.if_sized}.items()


def test_sizes_make_an_experiment_of_paxml():
    told, notes = found(tree_of("C4Spmd1BAdam4Replicas"), TRAINED)
    assert told.origin == "experiment C4Spmd1BAdam4Replicas or C4Spmd1BAdam4ReplicasLimitSteps"
    assert told.model["activation"] == "gelu_tanh"
    assert (told.learner["beta2"], told.learner["learning_rate"]) == (0.99, 1e-3)
    told, notes = found(tree_of("C4Spmd1BAdam4Replicas", num_layers=3), TRAINED)
    assert told is None
    assert "C4Spmd1BAdam4Replicas" in notes[0]
    assert "BertSpmdL4H128" in notes[0]  # the same leaves, another activation and mask
    told, _ = found(tree_of("C4Spmd1BAdam4Replicas"), replace(TRAINED, optimizer="sgd"))
    assert told is None


def test_where_two_fit_what_they_agree_on_is_taken_and_the_rest_is_named():
    told, notes = found(tree_of("C4Spmd2BAdam4Replicas"), TRAINED)  # LmCloudSpmd2B is as large
    assert told.model["dtype"] == "bfloat16"
    assert "learning_rate" not in told.learner
    assert told.learner["beta2"] == 0.99
    grouped = tree_of("LLaMA70BFP16TPUv5e", vocab_size=48, model_dims=16, num_layers=2)
    told, notes = found(grouped, CONVERTED)
    assert told.model["rotary.pairing"] == "interleaved"
    assert told.model["norm_epsilon"] == 1e-5
    assert "rotary.max_timescale" not in told.model
    assert "LLaMA70BFP16TPUv5e, LLaMA3_8BFP16x4 or LLaMA3_70BFP16x16" in notes[0]
    assert "rotary.max_timescale=10000 or rotary.max_timescale=500000" in notes[0]


def test_the_words_tell_llama_2_from_3():
    for words, timescale in ((32000, 10_000), (128256, 500_000)):
        told, _ = found(tree_of("LLaMA3_8BFP16x4", vocab_size=words, num_layers=2), CONVERTED)
        assert told.model["rotary.max_timescale"] == timescale


@pytest.mark.parametrize(
    "evidence",
    [
        replace(CONVERTED, step=1),
        replace(CONVERTED, dtypes=frozenset({"float32"})),
        replace(CONVERTED, dtypes=frozenset({"float16", "float32"})),
        replace(CONVERTED, optimizer="adam"),
    ],
)
def test_a_layout_without_its_marks_is_only_named(evidence: Evidence):
    told, notes = found(tree_of("LLaMA7BFP16", num_layers=2), evidence)
    assert told is None
    assert "LLaMA7BFP16" in notes[0]
    assert "--experiment NAME" in notes[0]


def test_the_pairing_is_not_taken_where_two_tools_fit():
    evidence = replace(CONVERTED, step_shape=(1,))
    told, notes = found(tree_of("LLaMA7BFP16", num_layers=2), evidence)
    assert "rotary.pairing" not in told.model
    assert told.model["activation"] == "silu"
    assert "rotary.pairing=interleaved or rotary.pairing=half_split" in notes[0]


def test_the_turned_part_of_a_head_is_that_of_the_real_size_alone():
    evidence = replace(CONVERTED, dtypes=frozenset({"float32"}))
    told, _ = found(tree_of("GPTJ"), evidence)
    assert told.model["rotary.fraction"] == 0.25
    told, _ = found(tree_of("GPTJ", head_dim=8), evidence)
    assert "rotary.fraction" not in told.model
    assert told.model["rotary.pairing"] == "interleaved"


def test_saxml_separates_projections_only_where_heads_share_keys():
    grouped = tree_of("LLaMA70BFP16TPUv5e", num_heads=4, num_kv_heads=4, num_layers=2)
    assert found(grouped, CONVERTED) == (None, [])
    with pytest.raises(MappingError, match="num_kv_heads is 4 of 4 heads, not 'fewer than heads'"):
        chosen(named("LLaMA70BFP16TPUv5e"), grouped, [])


def test_leaves_that_no_row_has_are_of_none():
    tree = tree_of("LLaMA7BFP16")
    tree.known["mlp_bias"] = Fact(True, "a leaf")
    assert found(tree, CONVERTED) == (None, [])


def test_a_named_experiment_has_to_have_the_leaves_but_not_the_sizes():
    notes: list[str] = []
    told = chosen(named("Gemma2BFP16"), tree_of("Gemma2BFP16", num_layers=2), notes)
    assert told.origin == "experiment Gemma2BFP16"
    assert told.model["norm_scale_plus_one"] is True
    assert notes == [
        "--experiment Gemma2BFP16: the sizes differ (num_layers 2, not 18); its settings are used"
    ]
    with pytest.raises(MappingError, match="fused_qkv is False, not True"):
        chosen(named("LLaMA7BFP16"), tree_of("Gemma2BFP16"), [])


def test_a_name_that_there_is_not():
    with pytest.raises(MappingError, match="Gemma2B: no such experiment; did you mean Gemma2B"):
        named("Gemma2B")


def test_records_and_their_parts_contradict_each_other():
    facts = Facts()
    facts.add("moe.num_experts", 4, "wi_0 [4, 8, 8]")
    facts.add("relative_bias", None, "no wrb")
    assert list(contradicted(facts, {"moe": None})) == ["moe"]
    assert list(contradicted(facts, {"relative_bias.num_buckets": 32})) == [
        "relative_bias.num_buckets"
    ]
    assert contradicted(facts, {"moe.num_experts": 4, "relative_bias": None}) == {}
