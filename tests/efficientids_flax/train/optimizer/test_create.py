"""`create_optimizer`: optax' own steps, clips, decay masks, averages, and frozen parameters."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_arrays

from efficientids_flax.config import BackboneConfig, OptimizerConfig
from efficientids_flax.train.optimizer.adam import scale_by_adam
from efficientids_flax.train.optimizer.create import (
    KINDS,
    averaged_params,
    create_learning_rate_schedule,
    create_optimizer,
)
from efficientids_flax.train.optimizer.freeze import matcher, merge, partition
from efficientids_flax.train.optimizer.variables import variables_of
from efficientids_flax.tree import flatten
from tests.efficientids_flax.train.networks import Network, begin, same, trainer
from tests.efficientids_flax.train.networks import batches as network_batches

RATE = 0.1
FROZEN = ("pretrained_lm",)
PARAMS: dict[str, Any] = {
    "pretrained_lm": {
        "layers_0": {"kernel": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32)},
        "layers_1": {"kernel": np.array([1e-42, -2.0], np.float32)},
        "half": jnp.array([0.1, -0.0], jnp.bfloat16),
    },
    "item_embedding": {"kernel": np.array([[0.5, -1.0, 4.0], [2.0, 3.0, -0.25]], np.float32)},
    "final_norm": {"scale": np.array([1.0, 2.0], np.float32)},
}
TRAINED = partition(PARAMS, FROZEN)[0]
CLIPS = ({}, {"clip_grad_norm": 0.3}, {"clip_variable_norm": 0.2})
REST = ({"weight_decay": 0.0}, {"weight_decay": 0.3, "undecayed_params": (), "ema_decay": 0.9})
schedule = create_learning_rate_schedule(RATE, 2, 10)


def bits(tree: Any) -> dict[str, bytes]:
    return {path: np.asarray(leaf).tobytes() for path, leaf in flatten(tree).items()}


def gradients_of(params: Any, scale: float = 1.0) -> Any:
    return jax.tree.map(lambda p: jnp.full(jnp.shape(p), scale, jnp.result_type(p)), params)


def run(optimizer: Any, params: Any, gradients: list[Any]) -> tuple[Any, Any]:
    """(parameters, state) after these steps."""

    @jax.jit
    def step(params: Any, state: Any, found: Any) -> Any:
        updates, state = optimizer.update(found, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for found in gradients:
        params, state = step(params, state, found)
    return params, state


def matrices(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("adamw", {"weight_decay": 0.3},
         optax.adamw(schedule, weight_decay=0.3, mask=matrices)),
        ("adam", {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3},
         optax.adam(schedule, 0.8, 0.9, 1e-3)),
        ("adam", {"nesterov": True}, optax.adam(schedule, nesterov=True)),
        ("sgd", {}, optax.sgd(schedule, momentum=0.9)),
        ("sgd", {"momentum": 0.5, "nesterov": True}, optax.sgd(schedule, 0.5, nesterov=True)),
        ("sgd", {"momentum": 0.0}, optax.sgd(schedule)),
        ("adafactor", {}, optax.adafactor(schedule)),
        ("adafactor", {"beta1": 0.9, "min_dim_size_to_factor": 2, "clip_threshold": None},
         optax.adafactor(schedule, 2, momentum=0.9, clipping_threshold=None)),
        ("adam", {"clip_grad_norm": 0.3},
         optax.chain(optax.clip_by_global_norm(0.3), optax.adam(schedule))),
    ],
)  # fmt: skip
def test_takes_the_steps_of_optax(name: str, options: Any, reference: Any):
    gradients = [gradients_of(TRAINED, scale) for scale in (1.0, -2.0, 0.5)]
    found, _ = run(create_optimizer(schedule, name, **options), TRAINED, gradients)
    wanted, _ = run(reference, TRAINED, gradients)
    # The decay is added after the multiplication by the rate, not before: some float32 roundings.
    for path, values in flatten(wanted).items():
        np.testing.assert_allclose(flatten(found)[path], values, rtol=1e-6, atol=1e-7)


def test_a_number_is_a_constant_schedule():
    gradients = [gradients_of(TRAINED)] * 2
    for name in KINDS:
        found = run(create_optimizer(RATE, name, 0.1), TRAINED, gradients)[0]
        wanted = run(create_optimizer(lambda _: jnp.float32(RATE), name, 0.1), TRAINED, gradients)
        assert bits(found) == bits(wanted[0])


LAYERS: dict[str, Any] = {
    "layers": {
        "norm": {"scale": jnp.ones((3, 4))},
        "mlp": {"bias": jnp.ones((3, 4)), "kernel": jnp.ones((3, 4, 4))},
        "attention": {"per_dim_scale": jnp.ones((3, 4))},
    },
    "embedder": {"embedding": jnp.ones((5, 4))},
    "offset": jnp.ones(4),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("options", "decayed"),
    [
        ({}, {"layers/mlp/kernel", "embedder/embedding"}),
        ({"undecayed_params": ()}, set(flatten(LAYERS))),
        (
            {"undecayed_params": ["embedder", "*/scale"]},
            {"layers/mlp/kernel", "layers/mlp/bias", "layers/attention/per_dim_scale", "offset"},
        ),
        ({"undecayed_params": lambda path: path != "offset"}, {"offset"}),
    ],
)
def test_weight_decay_spares_scales_and_biases_unless_told(
    name: str, options: dict[str, Any], decayed: set[str]
):
    optimizer = create_optimizer(RATE, name, 0.5, **options)
    found = flatten(run(optimizer, LAYERS, [gradients_of(LAYERS, 0.0)])[0])
    for path, values in found.items():
        # Without a gradient a parameter p becomes p (1 - rate * decay).
        np.testing.assert_allclose(values, 0.95 if path in decayed else 1.0, rtol=1e-6)


def test_only_adamw_decays_unless_told():
    none = [gradients_of(TRAINED, 0.0)]
    for name in KINDS:
        found = run(create_optimizer(RATE, name), TRAINED, none)[0]["item_embedding"]["kernel"]
        wanted = TRAINED["item_embedding"]["kernel"] * (1 - RATE * 1e-4 * (name == "adamw"))
        np.testing.assert_allclose(found, wanted, rtol=1e-7)


@settings(max_examples=30, deadline=None)
@given(
    limit=st.floats(1e-3, 1e3),
    values=any_arrays(np.float32, (2, 3), elements=st.floats(-1e3, 1e3, width=32)),
)
def test_clips_each_variable_by_its_own_norm(limit: float, values: np.ndarray):
    optimizer = create_optimizer(1.0, "sgd", clip_variable_norm=limit, momentum=0.0)
    gradients = {"a": jnp.asarray(values), "b": jnp.ones(4) * 1e-4}
    updates, _ = optimizer.update(gradients, optimizer.init(gradients), gradients)
    norm = np.linalg.norm(values.astype(np.float64))
    wanted = -values * min(1.0, limit / norm) if norm else -values
    np.testing.assert_allclose(updates["a"], wanted, rtol=1e-5, atol=1e-6 * limit)
    np.testing.assert_array_equal(updates["b"], -gradients["b"])  # norm 2e-4: whole


@pytest.mark.parametrize(("name", "clip", "rest"), [*product(KINDS, CLIPS, REST)])
def test_frozen_parameters_keep_every_bit(name: str, clip: Any, rest: Any):
    """Under every optimizer, clip and decay; the trained ones never see them."""
    optimizer = create_optimizer(RATE, name, frozen_params=FROZEN, **clip, **rest)
    whole = [gradients_of(PARAMS, scale) for scale in (1.0, np.nan)]
    whole[1] |= gradients_of(TRAINED, -3.0)  # NaN for the frozen ones alone
    part = [partition(gradients, FROZEN)[0] for gradients in whole]
    params, state = run(optimizer, PARAMS, whole)
    trained, frozen = partition(params, FROZEN)
    assert bits(frozen) == bits(partition(PARAMS, FROZEN)[1])
    assert not [
        keys for keys, _ in jax.tree_util.tree_leaves_with_path(state) if "pretrained" in str(keys)
    ]
    alone, state_alone = run(optimizer, TRAINED, part)
    assert bits(trained) == bits(alone)
    assert same(state, state_alone)
    unfrozen, _ = run(create_optimizer(RATE, name, **clip, **rest), TRAINED, part)
    assert bits(unfrozen) == bits(alone)
    for path, values in flatten(trained).items():
        assert not np.array_equal(values, flatten(TRAINED)[path])


EXAMPLES = {
    name: create_optimizer(RATE, name, 0.3, 1.0, lambda path: path.startswith("frozen"))
    for name in KINDS
}
STEPS = {
    name: jax.jit(
        lambda params, found, optimizer=optimizer: optax.apply_updates(
            params, optimizer.update(found, optimizer.init(params), params)[0]
        )
    )
    for name, optimizer in EXAMPLES.items()
}
ANYTHING = any_arrays(np.float32, (2, 3), elements=st.floats(width=32))


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=40, deadline=None)
@given(kept=ANYTHING, found=ANYTHING, moved=ANYTHING, gradient=ANYTHING)
def test_frozen_parameters_of_any_value(
    name: str, kept: Any, found: Any, moved: Any, gradient: Any
):
    """NaN, infinities, subnormal numbers and negative zeros, in parameters and gradients."""
    params = {"frozen": {"kernel": kept}, "rest": {"kernel": moved}}
    after = STEPS[name](params, {"frozen": {"kernel": found}, "rest": {"kernel": gradient}})
    assert after["frozen"]["kernel"].tobytes() == jnp.asarray(kept).tobytes()


def test_the_patterns_of_frozen_parameters():
    for patterns in (["pretrained_lm/*"], ["re:pretrained_lm/.*"], "pretrained_lm",
                     matcher(["pretrained_lm"])):  # fmt: skip
        optimizer = create_optimizer(RATE, "adam", frozen_params=patterns)
        assert set(flatten(optimizer.init(PARAMS)["adam"].mu)) == set(flatten(TRAINED))
    assert create_optimizer(RATE, frozen_params="pretrained_lm").frozen_params == FROZEN
    assert create_optimizer(RATE).frozen_params is None
    with pytest.raises(ValueError, match=r"'item_embeding' fits none .*did you mean 'item_emb"):
        create_optimizer(RATE, frozen_params=["pretrained_lm", "item_embeding"]).init(PARAMS)
    with pytest.raises(ValueError, match="all are frozen, nothing is left to train"):
        create_optimizer(RATE, frozen_params=["*"]).init(PARAMS)


def test_averages_follow_the_parameters():
    """By hand: after the first update the average of before, then a tenth and two elevenths."""
    optimizer = create_optimizer(1.0, "sgd", momentum=0.0, ema_decay=0.5, frozen_params=FROZEN)
    params = {"pretrained_lm": jnp.ones(2), "head": jnp.array([8.0])}
    gradients = [{"pretrained_lm": jnp.ones(2), "head": jnp.array([1.0])}] * 3
    found, state = run(optimizer, params, gradients)
    assert found["head"] == 5.0
    # Averaged: 8; 7 with weight 1 - 2/11; 6 with weight 1 - 3/12.
    second = 8 - (1 - 2 / 11) * (8 - 7)
    third = second - (1 - 3 / 12) * (second - 6)
    averaged = averaged_params(state, found)
    np.testing.assert_allclose(averaged["head"], [third], rtol=1e-6)
    np.testing.assert_array_equal(averaged["pretrained_lm"], found["pretrained_lm"])
    with pytest.raises(ValueError, match="made without ema_decay"):
        averaged_params(create_optimizer(1.0).init(params), params)


def test_praxis_adam_is_that_of_praxis():
    config = OptimizerConfig(
        "adam", beta1=0.9, beta2=0.99, epsilon=1e-6, clip_threshold=0.5, weight_decay=0.0
    )
    reference = optax.chain(
        scale_by_adam(config, variables_of(None)), optax.scale_by_learning_rate(schedule)
    )
    gradients = [gradients_of(TRAINED, scale) for scale in (1.0, -2.0, 0.5)]
    optimizer = create_optimizer(schedule, "praxis_adam", beta2=0.99, clip_threshold=0.5)
    assert bits(run(optimizer, TRAINED, gradients)[0]) == bits(
        run(reference, TRAINED, gradients)[0]
    )


def test_sharded_adafactor_keeps_a_scale_a_column_of_each_layer():
    model = BackboneConfig(
        vocab_size=8, num_layers=3, model_dims=4, hidden_dims=8, num_heads=2, num_kv_heads=2,
        head_dim=2, scan_layers=True,
    )  # fmt: skip
    params = {"layers": {"mlp": {"up": {"kernel": jnp.ones((3, 4, 8))}}}}
    for given_model, shape in ((model, (3, 8)), (None, (4, 8))):
        state = create_optimizer(RATE, "sharded_adafactor", model=given_model).init(params)
        slots = state["sharded_adafactor"]
        assert slots.m["layers"]["mlp"]["up"]["kernel"].dtype == jnp.int8
        assert slots.m_scale["layers"]["mlp"]["up"]["kernel"].shape == shape
    floats = create_optimizer(RATE, "sharded_adafactor", quantized_dtype="float32").init(params)
    assert flatten(floats["sharded_adafactor"].m)["layers/mlp/up/kernel"].dtype == jnp.float32


@pytest.mark.parametrize("name", ["adamw", "sharded_adafactor"])
def test_trains_and_goes_on_to_the_bit(name: str, tmp_path: Any):
    """In the Trainer: it freezes, logs the rate, and a run in two parts ends as one in one."""

    def created() -> Any:
        rates = create_learning_rate_schedule(0.01, 2, 6)
        return create_optimizer(rates, name, 0.1, 1.0, ["Dense_0"], ema_decay=0.9)

    first, second = (
        trainer(tmp_path, optimizer=optimizer, save_every=3) for optimizer in (created(), created())
    )
    whole = trainer(optimizer=second.optimizer)
    once = whole.train(begin(whole), network_batches(), num_steps=6)
    first.train(begin(first), network_batches(), num_steps=3)
    twice = second.train(begin(second), network_batches(), num_steps=6)
    assert same(once, twice)
    assert set(once.frozen) == {"Dense_0"}
    assert same(once.frozen, begin(whole).frozen)
    rates = [row["learning_rate"] for row in whole.history]
    np.testing.assert_allclose(rates[:3], [0.0, 0.005, 0.01], rtol=1e-6)
    averaged = averaged_params(once.opt_state, once.params)
    assert jax.tree.structure(averaged) == jax.tree.structure(merge(once.trained, once.frozen))
    output = Network().apply({"params": averaged, **once.model_state}, np.ones((1, 6), np.float32))
    assert np.isfinite(np.asarray(output)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer_type": "adamm"}, "'adamm': unknown; known are adam, adamw, sgd, adafac"),
        ({"momentum": 0.9}, r"'adamw': momentum: unknown key.*\(it has beta1, beta2, epsilon"),
        ({"optimizer_type": "sgd", "momentun": 1}, "momentun: unknown key; did you mean momentum?"),
        ({"learning_rate": -1.0}, "learning_rate: expected at least 0, found -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected at least 0, found nan"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0, found -0.1"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm: expected above 0, found 0.0; None is no clip"),
        ({"clip_grad_norm": 1.0, "clip_variable_norm": 1.0}, "excludes clip_grad_norm"),
        ({"beta1": 1.0, "ema_decay": -1}, r"beta1: .*\[0, 1\), found 1.0; ema_decay: .*found -1"),
        ({"optimizer_type": "sgd", "momentum": 0.0, "nesterov": True}, "nesterov: needs momentum"),
        ({"optimizer_type": "sharded_adafactor", "quantized_dtype": "int4"}, "quantized_dtype"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        create_optimizer(**{"learning_rate": RATE, **options})
