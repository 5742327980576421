"""A value counts as found when something speaks against every other, and else is left alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.config import RotaryConfig
from efficientids_flax.search.decide import Judge, Tried, Verdict, narrowed, paired, settled_origins
from efficientids_flax.search.moves import Choice
from efficientids_flax.settings import value_at
from tests.efficientids_flax.search.small import CONFIG

COUNT = 40
WEIGHT = np.full(COUNT, 5.0)
NOISE = np.random.default_rng(0).standard_normal(COUNT)
CHOICE = Choice("activation", ("relu", "gelu_tanh", "silu"))


def judge(worse, distances=None):
    """Losses above that of relu: (mean, error) by activation."""

    def losses(config):
        mean, error = worse.get(config.activation, (0.0, 0.0))
        noise = (NOISE - NOISE.mean()) / NOISE.std(ddof=1) * error * 5 * COUNT**0.5
        return 10.0 + 5.0 * mean + noise

    def distance(config, key):
        return None if distances is None else distances[config.activation]

    return Judge(losses, WEIGHT, distance)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=30))
def test_with_equal_weights_the_error_is_that_of_a_mean(values):
    differences = np.array(values)
    mean, error = paired(2.0 * differences, np.full(len(values), 2.0))
    assert mean == pytest.approx(differences.mean(), abs=1e-12)
    assert error == pytest.approx(differences.std(ddof=1) / len(values) ** 0.5, abs=1e-12)


def test_a_value_that_is_a_little_better_does_not_replace_the_assumed_one():
    found = judge({"silu": (-0.002, 0.0007)})
    settled = found.settle(replace(CONFIG, activation="silu"), [CHOICE])
    assert value_at(settled, "activation") == "relu"
    (verdict,) = found.verdicts(settled, [CHOICE])
    assert not verdict.found
    assert "silu" in verdict.alike


def test_a_value_that_is_clearly_better_does_and_the_table_orders_equals():
    worse = {"relu": (0.05, 0.004), "gelu_tanh": (0.0, 0.0), "silu": (-0.0002, 0.003)}
    found = judge(worse)
    settled = found.settle(replace(CONFIG, activation="silu"), [CHOICE])
    assert value_at(settled, "activation") == "gelu_tanh"
    (verdict,) = found.verdicts(settled, [CHOICE])
    assert not verdict.found
    assert verdict.alike == ("silu",)
    # It is not what was told any more, and not the only one that fits.
    assert settled_origins([verdict]) == {"activation": "assumed"}


def test_a_value_against_all_others_is_found():
    worse = {"gelu_tanh": (0.03, 0.004), "silu": (0.08, 0.01)}
    (verdict,) = judge(worse).verdicts(CONFIG, [CHOICE])
    assert verdict.found
    assert verdict.runner_up is not None
    assert verdict.runner_up.value == "gelu_tanh"
    assert verdict.runner_up.worse == pytest.approx(0.03)
    assert verdict.runner_up.error == pytest.approx(0.004)
    assert settled_origins([verdict]) == {"activation": "found"}


def test_momentum_decides_where_the_loss_does_not():
    distances = {"relu": 30.0, "gelu_tanh": 0.5, "silu": 12.0}
    found = judge({"gelu_tanh": (0.001, 0.001), "silu": (0.0, 0.001)}, distances)
    settled = found.settle(CONFIG, [CHOICE])
    assert value_at(settled, "activation") == "gelu_tanh"
    (verdict,) = found.verdicts(settled, [CHOICE])
    assert verdict.found


def test_values_that_change_no_number_are_neither_for_nor_against():
    (verdict,) = judge({}).verdicts(CONFIG, [CHOICE])
    assert not verdict.found
    assert verdict.alike == ()
    assert verdict.runner_up is None


def test_of_rotary_positions_what_was_tried_is_found():
    turned = replace(CONFIG, rotary=RotaryConfig(pairing="interleaved"))
    assert turned.rotary is not None
    pairing = narrowed(turned, "rotary", turned.rotary.to_dict())
    assert pairing == {"pairing": "interleaved"}
    assert narrowed(CONFIG, "rotary", None) is None
    other = (Tried(None, 2.0, 1.0, 0.1, out=True),)
    found = Verdict("rotary", pairing, pairing, 1.0, other)
    assert settled_origins([found]) == {"rotary.pairing": "found"}
    gone = Verdict("rotary", pairing, None, 1.0, (Tried(pairing, 2.0, 1.0, 0.1, out=True),))
    assert settled_origins([gone]) == {"rotary": "found"}
