"""Freezing by patterns: no state, no change of a single bit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.train.optimizer.freeze import (
    frozen_mask,
    matcher,
    merge,
    partition,
    train_only,
    unchanged,
)
from efficientids_flax.tree import flatten

PARAMS: dict[str, Any] = {
    "pretrained_lm": {
        "layers_0": {"mlp": {"kernel": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32)}},
        "layers_10": {"mlp": {"kernel": np.array([1e-42, -2.0], np.float32)}},
        "steps": np.array([3, -4], np.int32),
        "half": jnp.array([0.1, -0.0], jnp.bfloat16),
    },
    "item_embedding": {"kernel": np.array([[0.5, -1.0], [2.0, 3.0]], np.float32)},
    "pretrained_lm_head": {"bias": np.array([1.0, 2.0], np.float32)},
}
OPTIMIZERS = {
    "adamw": optax.adamw(0.1, weight_decay=0.1),
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9)),
    "adafactor": optax.adafactor(0.1, min_dim_size_to_factor=1, weight_decay_rate=0.1),
    "lion": optax.lion(0.1, weight_decay=0.1),
}


def bits(values: Any) -> bytes:
    return np.asarray(values).tobytes()


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("pretrained_lm", "pretrained_lm/layers_0/mlp/kernel", True),
        ("pretrained_lm", "model/pretrained_lm/bias", True),
        ("pretrained_lm", "pretrained_lm_head/bias", False),
        ("layers_1", "layers_10/mlp/kernel", False),
        ("layers_1/mlp", "pretrained_lm/layers_1/mlp/kernel", True),
        ("pretrained_lm/", "pretrained_lm/bias", True),
        ("pretrained_lm/*/kernel", "pretrained_lm/layers_0/mlp/kernel", True),
        ("*/kernel", "pretrained_lm/layers_0/mlp/bias", False),
        ("layers_[01]/*", "layers_1/bias", True),
        ("re:.*/layers_[0-3]/.*", "pretrained_lm/layers_2/bias", True),
        ("re:layers_[0-3]", "layers_2/bias", False),
    ],
)
def test_patterns(pattern: str, path: str, fits: bool):
    assert matcher([pattern])(path) is fits
    assert matcher(["nothing", pattern])(path) is fits


def test_no_patterns_freeze_nothing():
    assert partition(PARAMS, [])[1] == {}


def test_a_regex_that_is_none():
    with pytest.raises(ValueError, match=r"frozen parameters: 're:\(' is no regex"):
        matcher(["re:("])


def test_a_pattern_that_fits_nothing_is_a_mistake():
    with pytest.raises(ValueError, match=r"'pretraind_lm' fits none .*did you mean 'pretrained_lm"):
        partition(PARAMS, ["pretraind_lm"])
    with pytest.raises(ValueError, match=r"'zzz' fits none of the parameters; there are bias, "):
        frozen_mask(PARAMS, ["pretrained_lm", "zzz"])


def test_partition_and_merge():
    trained, frozen = partition(PARAMS, ["pretrained_lm"])
    assert set(trained) == {"item_embedding", "pretrained_lm_head"}
    assert set(frozen) == {"pretrained_lm"}
    assert jax.tree.map(bits, merge(trained, frozen)) == jax.tree.map(bits, PARAMS)
    mask = flatten(frozen_mask(PARAMS, ["pretrained_lm"]))
    assert {path for path, is_frozen in mask.items() if is_frozen} == {
        f"pretrained_lm/{path}" for path in flatten(PARAMS["pretrained_lm"])
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_keep_every_bit_and_have_no_state(name: str):
    frozen = matcher(["pretrained_lm"])
    transform = train_only(OPTIMIZERS[name], lambda path: not frozen(path))
    params, state = PARAMS, transform.init(PARAMS)
    assert not [
        keys for keys, _ in jax.tree_util.tree_leaves_with_path(state) if "layers" in str(keys)
    ]

    @jax.jit
    def step(params: Any, state: Any, gradients: Any) -> Any:
        updates, state = transform.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for scale in (1.0, -3.0):
        gradients = jax.tree.map(lambda p, scale=scale: jnp.full_like(p, scale), params)
        params, state = step(params, state, gradients)
    trained, kept = partition(params, ["pretrained_lm"])
    wanted = partition(PARAMS, ["pretrained_lm"])
    assert jax.tree.map(bits, kept) == jax.tree.map(bits, wanted[1])
    for path, values in flatten(trained).items():
        assert not np.array_equal(values, flatten(wanted[0])[path])


def test_gradients_of_frozen_parameters_count_for_nothing():
    frozen = matcher(["pretrained_lm"])
    transform = train_only(OPTIMIZERS["clipped"], lambda path: not frozen(path))
    full = jax.tree.map(jnp.ones_like, PARAMS)
    huge = full | {"pretrained_lm": jax.tree.map(lambda g: g * 1000, full["pretrained_lm"])}
    part = partition(full, ["pretrained_lm"])[0]
    state = transform.init(PARAMS)
    found = [transform.update(g, state, PARAMS)[0] for g in (full, huge, part)]
    assert set(found[2]) == set(part)
    for path, values in flatten(found[2]).items():
        for other in found[:2]:
            assert bits(flatten(other)[path]) == bits(values)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_the_update_that_changes_nothing(dtype: str):
    values = jnp.array([0.0, -0.0, 1.0, -2.0]).astype(dtype)
    assert bits(jax.jit(lambda v: v + unchanged(v))(values)) == bits(values)
