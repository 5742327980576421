"""Typed optimizer states."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from efficientids_flax.stored.optimizer_states import STATES, ShardedAdafactorState, typed_states

TREE = {"lm": {"w": np.ones(3)}}
COUNT = np.array(3, np.int32)
FIELDS: dict[str, dict[str, Any]] = {
    "adam": {"count": COUNT, "mu": TREE, "nu": TREE},
    "sharded_adafactor": {
        "count": COUNT, "m": TREE, "m_scale": TREE, "vr": TREE, "vc": TREE, "v": TREE,
    },
    "momentum": {"trace": TREE},
    "schedule": {"count": COUNT},
    "ema": {"count": COUNT, "ema": TREE},
}  # fmt: skip


def test_every_state_becomes_its_type():
    found = typed_states(FIELDS)
    assert list(found) == list(FIELDS)
    for name, state in found.items():
        assert type(state) is STATES[name]
        assert state._asdict() == FIELDS[name]


def test_optax_itself_makes_states_of_these_types():
    params = {"w": np.ones(3, np.float32)}
    chain = {
        "adam": optax.scale_by_adam(),
        "momentum": optax.trace(0.9),
        "schedule": optax.scale_by_schedule(lambda count: 1.0),
        "ema": optax.ema(0.9),
    }
    for name, transform in chain.items():
        state = transform.init(params)
        assert type(state) is STATES[name]
        fields = state._asdict()  # type: ignore[attr-defined]
        (typed,) = typed_states({name: fields}).values()
        assert jax.tree.structure(typed) == jax.tree.structure(state)


def test_a_state_of_adafactor_is_a_tree():
    (state,) = typed_states({"sharded_adafactor": FIELDS["sharded_adafactor"]}).values()
    assert isinstance(state, ShardedAdafactorState)
    doubled = jax.tree.map(lambda leaf: leaf * 2, state)
    assert doubled.count == 6
    assert doubled.vc["lm"]["w"].tolist() == [2, 2, 2]


def test_trees_in_which_every_parameter_is_frozen_are_empty():
    (state,) = typed_states({"adam": {"count": COUNT}}).values()
    assert (state.mu, state.nu) == ({}, {})


def test_an_unknown_state():
    with pytest.raises(
        ValueError, match="unknown optimizer state 'lion'; known are adam, adam_bias"
    ):
        typed_states({"lion": {"count": COUNT}})


def test_unknown_fields():
    with pytest.raises(ValueError, match="optimizer state 'adam' has no field v, w"):
        typed_states({"adam": {"count": COUNT, "w": TREE, "v": TREE}})


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "momentum"])
def test_a_count_that_is_missing(name: str):
    fields = {field: values for field, values in FIELDS[name].items() if field != "count"}
    with pytest.raises(ValueError, match=f"optimizer state '{name}' lacks its count"):
        typed_states({name: fields})


def test_no_states():
    assert typed_states({}) == {}
