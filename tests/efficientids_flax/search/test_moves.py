"""What is tried: only what nothing told, only models of the same parameters, the assumed first."""

from dataclasses import replace

import pytest

from efficientids_flax.config import RotaryConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.search.moves import choices, combinations, matches, moved, moves, unusable
from tests.efficientids_flax.search.small import CONFIG


def test_what_was_told_is_not_tried_unless_it_is_asked_for():
    keys = {one.key for one in choices(CONFIG, {"activation": "dump", "norm_epsilon": "given"})}
    assert not {"activation", "norm_epsilon", "label_smoothing"} & keys
    asked = {one.key for one in choices(CONFIG, {"activation": "dump"}, also=["activation"])}
    assert "activation" in asked
    with pytest.raises(ValueError, match="lora: cannot be tried"):
        choices(CONFIG, {}, also=["lora"])


def test_a_record_is_told_by_the_part_that_is_tried():
    turned = replace(CONFIG, rotary=RotaryConfig())
    keys = {one.key for one in choices(turned, {"rotary.pairing": "given"})}
    assert "rotary" not in keys
    assert "rotary.max_timescale" in keys


def test_the_assumed_value_comes_first_and_none_twice():
    for choice in choices(CONFIG, {}):
        assert matches(CONFIG, choice.key, choice.values[0])
        assert len({repr(value) for value in choice.values}) == len(choice.values)


def test_moves_keep_the_parameters_and_change_something():
    shapes = parameter_shapes(CONFIG)
    made = list(moves(CONFIG, choices(CONFIG, {})))
    assert len(made) > 30
    for key, value, config in made:
        assert config != CONFIG
        assert matches(config, key, value)
        assert parameter_shapes(config) == shapes


def test_settings_of_what_is_not_there_are_tried_once_it_is():
    keys = {one.key for one in choices(CONFIG, {})}
    assert "rotary.max_timescale" in keys
    assert moved(CONFIG, "rotary.max_timescale", 500_000.0) is None
    turned = replace(CONFIG, rotary=RotaryConfig())
    other = moved(turned, "rotary.max_timescale", 500_000.0)
    assert other is not None
    assert other.rotary == RotaryConfig(max_timescale=500_000.0)


def test_combinations_are_all_of_the_gross_settings():
    origins = {"parallel_residual": "tree", "norm_policy": "tree", "activation": "tree"}
    able = choices(CONFIG, origins)
    found = {
        (c.position_embedding, c.rotary and c.rotary.pairing, c.norm_scale_plus_one,
         c.embedding_scale)
        for c in combinations(CONFIG, able)
    }  # fmt: skip
    assert len(found) == 2 * 3 * 2 * 2


def test_batches_say_what_they_cannot_judge():
    barred = unusable(CONFIG, {"ids", "labels"}, 16, causal=True)
    assert barred["attention_mask"] == ["bidirectional", "prefix"]
    assert 8 not in barred["sliding_window"]
    assert 16 in barred["sliding_window"]
    assert unusable(CONFIG, {"inputs_indicator"}, 16)["attention_mask"] == []
