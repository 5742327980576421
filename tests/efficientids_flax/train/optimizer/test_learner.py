"""The learner: which steps are skipped, what is frozen, which states and configurations fit."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.config import OptimizerConfig, ScheduleConfig
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.stored.optimizer_states import STATES
from efficientids_flax.train.optimizer.learner import learning_rate, paxml_learner
from efficientids_flax.tree import flatten, unflatten
from tests.efficientids_flax.compiled import compiled
from tests.efficientids_flax.train.optimizer.recorded import Recorded, small_model

MODEL = small_model(Recorded("steps").about["sizes"])
CONSTANT = ScheduleConfig("constant", {"value": 0.5})
ADAM = OptimizerConfig(
    "adam",
    learning_rate=0.1,
    schedule=CONSTANT,
    beta1=0.9,
    beta2=0.99,
    epsilon=1e-8,
    clip_threshold=1.0,
    weight_decay=0.1,
)
ADAFACTOR = OptimizerConfig(
    "sharded_adafactor",
    learning_rate=0.1,
    schedule=CONSTANT,
    beta1=0.9,
    decay_method="adam",
    decay_adam=0.99,
    clip_threshold=1.0,
    weight_decay=0.1,
)
SGD = OptimizerConfig("sgd", learning_rate=0.1, schedule=CONSTANT, momentum=0.9)
FROZEN = ("params/lm/transformer/.*", "params/lm/softmax/logits_ffn/bias/b")
EACH = pytest.mark.parametrize("config", [ADAM, ADAFACTOR, SGD], ids=lambda config: config.name)


def values_of(seed: int, model: Any = MODEL, spread: float = 1.0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shapes = parameter_shapes(model)
    return unflatten(
        {path: random.normal(0, spread, shapes[path]).astype(np.float32) for path in sorted(shapes)}
    )


PARAMS = values_of(0)
PARAMS["lm_head"]["bias"] = PARAMS["lm_head"]["bias"] * np.float32(-0.0)
GRADIENTS = values_of(1)


def learner_of(config: OptimizerConfig, model: Any) -> Any:
    """The learner in two programs: op by op it takes some hundred."""
    return compiled(paxml_learner(config, model))


@cache
def averaging(name: str, largest_norm: float = 0.0) -> Any:
    """The learner of one of `EACH`, with averages; it leaves out steps of a larger norm."""
    config = {config.name: config for config in (ADAM, ADAFACTOR, SGD)}[name]
    return learner_of(
        replace(config, skip_step_gradient_norm_value=largest_norm, ema_decay=0.9), MODEL
    )


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def is_frozen(path: str) -> bool:
    return path.startswith("layers/") or path == "lm_head/bias"


def with_nan(gradients: Any) -> Any:
    flat = flatten(gradients)
    flat["final_norm/bias"] = np.array([0, np.nan, 0, 0], np.float32)
    return unflatten(flat)


@EACH
def test_states_have_the_names_and_types_of_converted_ones(config: OptimizerConfig):
    state = averaging(config.name).init(PARAMS)
    order = [name for name in STATES if name in state]
    assert list(state) == order
    assert order[-2:] == ["schedule", "ema"]
    assert all(type(part) is STATES[name] for name, part in state.items())


@EACH
@pytest.mark.parametrize("cause", ["gradient", "loss", "norm"])
def test_a_bad_step_changes_nothing_but_is_over(config: OptimizerConfig, cause: str):
    learner = averaging(config.name, 1.0 if cause == "norm" else 0.0)
    good = jax.tree.map(lambda g: g * 1e-3, GRADIENTS)
    fine = np.float32(1)
    updates, state = learner.update(good, learner.init(PARAMS), PARAMS, loss=fine)
    params = optax.apply_updates(PARAMS, updates)
    loss = np.float32(np.nan) if cause == "loss" else fine
    gradients = {"gradient": with_nan(good), "norm": GRADIENTS, "loss": good}[cause]
    updates, after = learner.update(gradients, state, params, loss=loss)
    assert bits(after) == bits(state)
    assert bits(optax.apply_updates(params, updates)) == bits(params)
    _, later = learner.update(good, after, params, loss=fine)
    assert int(later["schedule"].count) == 2


def test_bad_steps_are_taken_where_the_job_took_them():
    learner = learner_of(replace(ADAM, skip_step_on_gradient_anomalies=False), MODEL)
    updates, state = learner.update(with_nan(GRADIENTS), learner.init(PARAMS), PARAMS)
    assert np.isnan(flatten(updates)["final_norm/bias"]).sum() == 4  # the clip spreads it
    assert int(state["adam"].count) == 1


@EACH
def test_frozen_parameters_keep_every_bit(config: OptimizerConfig):
    config = replace(
        config,
        bprop_variable_exclusion=FROZEN,
        clip_gradient_norm_to_value=0.1,
        decoupled_weight_decay=0.1,
        ema_decay=0.9,
    )
    learner = learner_of(config, MODEL)
    state, params = learner.init(PARAMS), PARAMS
    for _ in range(2):
        updates, state = learner.update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
    before = flatten(PARAMS)
    for path, values in flatten(params).items():
        assert (bits(values) == bits(before[path])) is is_frozen(path), path
    trained = {path for path in before if not is_frozen(path)}
    for part in state.values():
        for field in set(part._fields) - {"count"}:
            assert set(flatten(getattr(part, field))) == trained


@EACH
def test_gradients_of_the_trained_parameters_suffice(config: OptimizerConfig):
    config = replace(config, bprop_variable_exclusion=FROZEN, clip_gradient_norm_to_value=0.1)
    learner = learner_of(config, MODEL)
    part = unflatten({p: g for p, g in flatten(GRADIENTS).items() if not is_frozen(p)})
    state = learner.init(PARAMS)
    full, full_state = learner.update(GRADIENTS, state, PARAMS)
    updates, part_state = learner.update(part, state, PARAMS)
    wanted = flatten(full)
    assert flatten(updates).keys() == flatten(part).keys()
    assert all(bits(u) == bits(wanted[path]) for path, u in flatten(updates).items())
    assert bits(full_state) == bits(part_state)


def test_an_exclusion_must_match_the_whole_name():
    config = replace(ADAM, bprop_variable_exclusion=("params/lm/transformer", "lm/softmax/.*"))
    state = learner_of(config, MODEL).init(PARAMS)
    assert flatten(state["adam"].mu).keys() == flatten(PARAMS).keys()


@EACH
def test_scanned_and_separate_layers_take_the_same_steps(config: OptimizerConfig):
    """What is one variable is one layer, however layers lie."""
    separate = replace(MODEL, scan_layers=False)

    def apart(tree: Any) -> dict[str, Any]:
        found = {}
        for path, values in flatten(tree).items():
            head, _, rest = path.partition("layers/")
            if rest and not head:
                found |= {f"layers_{i}/{rest}": values[i] for i in range(MODEL.num_layers)}
            else:
                found[path] = values
        return unflatten(found)

    both: list[Callable[[Any], Any]] = [lambda tree: tree, apart]
    results = []
    for model, form in zip((MODEL, separate), both, strict=True):
        learner = learner_of(replace(config, quantized_dtype="int8"), model)
        params, state = form(PARAMS), learner.init(form(PARAMS))
        for _ in range(2):
            updates, state = learner.update(form(GRADIENTS), state, params)
            params = optax.apply_updates(params, updates)
        results.append(flatten(params))
    stacked = flatten(apart(unflatten(results[0])))
    assert stacked.keys() == results[1].keys()
    for path, values in results[1].items():
        np.testing.assert_allclose(stacked[path], values, rtol=1e-5, atol=1e-7)


@EACH
def test_dtypes_and_shapes_of_the_state_stay(config: OptimizerConfig):
    """A step can be a loop's body, and its state donated; with half-precision parameters too."""
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    learner = learner_of(replace(config, ema_decay=0.9), MODEL)
    state = learner.init(half)
    after = jax.eval_shape(learner.update, half, state, half)[1]
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)


def test_the_learning_rate():
    assert float(learning_rate(ADAM)(3)) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimizerConfig("adam"), "learning_rate, schedule, beta1, beta2, epsilon not known"),
        (replace(SGD, schedule=None), "optimizer 'sgd': schedule not known"),
        (replace(ADAFACTOR, decay_method=""), "needs decay_method 'adam' with decay_adam"),
        (replace(ADAFACTOR, decay_method="pow"), "found 'pow', 0.99, None"),
        (replace(ADAFACTOR, respect_skip_lp_regularization=True), "respect_skip_lp"),
        (replace(ADAM, scale_update_by_var_norm=True), "scale_update_by_var_norm: not supported"),
    ],
)
def test_configurations_that_do_not_suffice(config: OptimizerConfig, message: str):
    with pytest.raises(ValueError, match=message):
        paxml_learner(config, MODEL)


def test_regularizers_need_the_model_s_configuration():
    with pytest.raises(ValueError, match="scales of LayerNorm"):
        paxml_learner(replace(ADAM, decoupled_weight_decay=0.1), None)


def test_the_state_of_another_optimizer():
    state = learner_of(SGD, MODEL).init(PARAMS)
    with pytest.raises(ValueError, match="has momentum, schedule; this optimizer has adam, sched"):
        paxml_learner(ADAM, MODEL).update(GRADIENTS, state, PARAMS)


def test_a_state_without_what_is_trained():
    frozen = replace(ADAM, bprop_variable_exclusion=FROZEN)
    state = learner_of(frozen, MODEL).init(PARAMS)
    with pytest.raises(ValueError, match=r"adam/mu: layers/attention.* has no state"):
        paxml_learner(ADAM, MODEL).update(GRADIENTS, state, PARAMS)
    state = learner_of(ADAM, MODEL).init(PARAMS)
    with pytest.raises(ValueError, match=r"adam/mu: layers/attention.* is frozen"):
        paxml_learner(frozen, MODEL).update(GRADIENTS, state, PARAMS)


def test_a_gradient_that_is_missing():
    learner = learner_of(ADAM, MODEL)
    some = {key: value for key, value in GRADIENTS.items() if key != "final_norm"}
    with pytest.raises(ValueError, match="final_norm/bias: gradients and parameters must both"):
        learner.update(some, learner.init(PARAMS), PARAMS)
