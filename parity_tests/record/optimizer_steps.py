"""Records steps of PAXml's learners: `python -m parity_tests.record.optimizer_steps OUT`.

OUT gets three sets of files. `steps.npz` and `steps.json`: each optimizer on the variables of a
small model with repeated layers, with made-up gradients, one of which is not finite.
`schedules.json`: the values of every schedule. `hundred.npz` and `hundred.json`: a small language
model, trained for 100 steps with PAXml's own train step.

An array holds the values of many variables one after another, because a file of many small arrays
is mostly headers. `variables` in the JSON lists [name, shape] in their order; `state` of an
optimizer lists the indices in `variables` of those that have a state.
"""
from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from paxml import learners, tasks_lib, trainer_lib
from praxis import base_layer, optimizers, pax_fiddle, py_utils, schedules

from parity_tests.record.models.experiments import GPT, Variant, adam, experiment_of

SMALL = {
    "NUM_LAYERS": 2, "VOCAB_SIZE": 7, "DIMS_PER_HEAD": 2, "NUM_HEADS": 2, "MODEL_DIMS": 4,
    "HIDDEN_DIMS": 3, "TRAINABLE_PE_MAX_SEQ_LEN": 5, "TRAINABLE_POSITION_EMB": True,
    "COMBINE_QKV": True, "USE_REPEATED_LAYER": True,
}  # fmt: skip
TIME = 4
STEPS, NOT_FINITE = 6, 3  # the gradient of step 3 contains one infinity
RATE = {"warmup_steps": 2, "decay_start": 3, "decay_end": 8, "min_ratio": 0.1, "max": 1.0}
LAYERS = "params/lm/transformer/.*"
FACTOR = {"decay_method": "adam", "decay_adam": 0.99, "beta1": 0.9}

# fmt: off
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    # name                  class, its fields, fields of the learner
    "adam":                (optimizers.Adam, {"weight_decay": 0.1, "epsilon": 1e-8,
                                              "clip_gradient_norm_to_value": 0.5}, {}),
    "adam_capped":         (optimizers.Adam, {"beta1": 0.8, "beta2": 0.95, "epsilon_root": 1e-4,
                                              "clip_threshold": 0.3, "ema_decay": 0.9,
                                              "clip_gradient_single_norm_to_value": 0.2,
                                              "decoupled_weight_decay": 0.05}, {}),
    "adam_of_optax":       (optimizers.Adam, {"sharded_adam": False, "l2_regularizer_weight": 0.01,
                                              "skip_lp_1d_vectors": True}, {}),
    "adam_unvectorized":   (optimizers.Adam, {"clip_threshold": 0.5},
                            {"vectorize_on_repeat_prefix": False}),
    "adam_included":       (optimizers.Adam, {"weight_decay": 0.1, "ema_decay": 0.5},
                            {"bprop_variable_inclusion": [LAYERS],
                             "skip_step_gradient_norm_value": 15.0}),
    "adam_kept_state":     (optimizers.Adam, {"weight_decay": 0.1, "ema_decay": 0.99,
                                              "clip_gradient_norm_to_value": 0.1},
                            {"bprop_variable_exclusion": [LAYERS],
                             "keep_optimizer_state_for_excluded_vars": True}),
    "adafactor":           (optimizers.ShardedAdafactor,
                            {**FACTOR, "weight_decay": 0.01, "clip_gradient_norm_to_value": 1.0}, {}),
    "adafactor_frozen":    (optimizers.ShardedAdafactor, {**FACTOR, "weight_decay": 0.01},
                            {"bprop_variable_exclusion": [LAYERS, "params/lm/final_ln/.*"]}),
    "adafactor_pow":       (optimizers.ShardedAdafactor,
                            {"decay_method": "pow", "decay_pow": 0.8, "beta1": 0.9,
                             "quantized_dtype": "float32", "factored": False,
                             "multiply_by_parameter_scale": True, "ema_decay": 0.9,
                             "clip_threshold": 0.5, "epsilon2_param_scale_reg": 0.3}, {}),
    "adafactor_layerwise": (optimizers.ShardedAdafactor,
                            {**FACTOR, "quantized_dtype": "bfloat16", "layerwise_adaptation": True,
                             "exclude_from_layerwise_adaptation": [".*/final_ln", ".*/bias$"],
                             "weight_decay": {".*/w$": 0.1, "params/lm/softmax": 0.2}}, {}),
    "adafactor_sorted":    (optimizers.ShardedAdafactor,
                            {**FACTOR, "quantized_dtype": "int16", "min_dim_size_to_factor": 4,
                             "sort_factored_second_moment_dims": True,
                             "decoupled_weight_decay": 0.1}, {}),
    "adafactor_bare":      (optimizers.ShardedAdafactor,
                            {**FACTOR, "beta1": 0.0, "clip_threshold": None}, {}),
    "momentum":            (optimizers.ShardedSgd, {"momentum": 0.9, "nesterov": True,
                                                    "l1_regularizer_weight": 0.01}, {}),
    "momentum_averaged":   (optimizers.Sgd, {"momentum": 0.5, "ema_decay": 0.999},
                            {"bprop_variable_exclusion": "params/lm/softmax/.*"}),
    "sgd":                 (optimizers.Sgd, {"decoupled_weight_decay": 0.1}, {}),
}
POINTS = {"start": (3, 2.0), "limit": (17, 0.25)}
RAMP = {"warmup_steps": 4, "decay_start": 7, "decay_end": 23, "min_ratio": 0.1, "max": 3.0}
PIECES = {"boundaries": [3, 8, 15], "values": [0.5, 2.0, 0.25]}
SCHEDULES: tuple[tuple[str, Any, dict[str, Any]], ...] = (
    ("constant",                         schedules.Constant, {"value": 0.3}),
    ("linear",                           schedules.Linear, POINTS),
    ("polynomial",                       schedules.Polynomial, {**POINTS, "power": 3}),
    ("polynomial",                       schedules.Polynomial,
     {**POINTS, "power": 2, "origin": "limit"}),
    ("exponential",                      schedules.Exponential, POINTS),
    ("cosine",                           schedules.Cosine,
     {"initial_value": 2.0, "final_value": 0.5, "total_steps": 20}),
    ("delayed_cosine",                   schedules.DelayedCosine, POINTS),
    ("linear_rampup_polynomial_decay",   schedules.LinearRampupPolynomialDecay,
     {**RAMP, "power": 2}),
    ("linear_rampup_cosine_decay",       schedules.LinearRampupCosineDecay, RAMP),
    ("linear_rampup_cosine_decay",       schedules.LinearRampupCosineDecay,
     {**RAMP, "warmup_steps": 0, "decay_start": 0, "min_ratio": 0.0}),
    ("linear_rampup_cosine_decay",       schedules.LinearRampupCosineDecay,
     {**RAMP, "warmup_steps": 6, "decay_start": 7}),
    ("linear_rampup_exponential_decay",  schedules.LinearRampupExponentialDecay, RAMP),
    ("linear_rampup_sqrt_decay",         schedules.LinearRampupSqrtDecay,
     {"peak": 0.7, "warmup_steps": 6}),
    ("linear_rampup_piecewise_constant", schedules.LinearRampupPiecewiseConstant, PIECES),
    ("piecewise_constant",               schedules.PiecewiseConstant,
     {"boundaries": [3, 8, 15], "values": [0.5, 0.0, 0.25, 0.125]}),
    ("piecewise_constant",               schedules.PiecewiseConstant,
     {"boundaries": [], "values": [0.5]}),
    ("transformer",                      schedules.Transformer,
     {"warmup_steps": 6, "model_dim": 12, "worker_replicas": 2, "decay_end": 19}),
    ("sqrt_decay",                       schedules.SqrtDecay,
     {"decay_start": 5, "multiplier": 2.0, "offset": 3.0}),
    ("continuous",                       schedules.ContinuousSchedule,
     {"initial_value": 2.0, "start_step": 4, "half_life_steps": 3, "min": 0.1}),
)
# fmt: on
COUNTS = [*range(26), 100, 20_000]

HUNDRED = {**SMALL, "VOCAB_SIZE": 13, "MODEL_DIMS": 8, "DIMS_PER_HEAD": 4, "HIDDEN_DIMS": 12,
           "TRAINABLE_POSITION_EMB": False}  # fmt: skip
HUNDRED_OPTIMIZERS = {
    "adam": (optimizers.Adam, {"learning_rate": 3e-3, "weight_decay": 1e-3,
                               "clip_gradient_norm_to_value": 1.0}),
    "adafactor": (optimizers.ShardedAdafactor, {**FACTOR, "learning_rate": 3e-3,
                                                "weight_decay": 1e-3}),
}  # fmt: skip
HUNDRED_RATE = {**RATE, "warmup_steps": 20, "decay_start": 21, "decay_end": 100}


def main() -> None:
    """Write the files."""
    jax.config.update("jax_default_matmul_precision", "highest")
    flags.FLAGS.mark_as_parsed()
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    _write(out, "schedules", None, {"counts": COUNTS, "schedules": _schedules()})
    _write(out, "steps", *_steps())
    _write(out, "hundred", *_hundred())


def _schedules() -> list[dict[str, Any]]:
    found = []
    for kind, cls, parameters in SCHEDULES:
        schedule = pax_fiddle.Config(cls, **parameters).Instantiate()
        values = [float(schedule.value_at(jnp.array(count, jnp.int32))) for count in COUNTS]
        found.append({"kind": kind, "parameters": parameters, "values": values})
    return found


def _steps() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    task, batch = _task(SMALL, None)
    described = task.model.abstract_init_with_metadata(batch)
    random = np.random.RandomState(0)
    start = jax.tree_util.tree_map(
        lambda p: random.normal(0, 0.5, p.repeat_prefix + list(p.shape) if p.repeat_prefix
                                else p.shape).astype(np.float32), described
    )  # fmt: skip
    gradients = [
        jax.tree_util.tree_map(
            lambda p: (random.normal(0, 1, p.shape) * np.exp(random.normal(-1, 1))).astype("f4"),
            start,
        )
        for _ in range(STEPS)
    ]
    gradients[NOT_FINITE]["params"]["lm"]["final_ln"]["bias"][1] = np.inf
    arrays = {
        "start": _packed(start), "gradients": np.stack([_packed(values) for values in gradients])
    }  # fmt: skip
    about = {}
    for name, (cls, fields, learner_fields) in OPTIMIZERS.items():
        schedule = pax_fiddle.Config(schedules.LinearRampupCosineDecay, **RATE)
        optimizer = pax_fiddle.Config(cls, learning_rate=0.1, lr_schedule=schedule, **fields)
        learner = pax_fiddle.Config(
            learners.Learner, name="learner", loss_name="loss", optimizer=optimizer,
            **learner_fields,
        ).Instantiate()  # fmt: skip
        params, state, after = start, None, []
        for values in gradients:
            params, state = _step(learner, described, params, state, values)
            after.append(_packed(params))
        arrays[f"{name}/parameters"] = np.stack(after)
        fields_of, count = _state(state)
        for field, values in fields_of.items():
            arrays[f"{name}/state/{field}"] = np.concatenate([v.ravel() for v in values.values()])
        about[name] = {
            "class": cls.__name__, "optimizer": fields, "learner": learner_fields, "count": count,
            "state": [place for place, variable in enumerate(_flat(start))
                      if variable in next(iter(fields_of.values()), ())],
        }  # fmt: skip
    return arrays, {
        "learning_rate": 0.1, "schedule": RATE, "sizes": SMALL,
        "variables": _shapes(_flat(start)), "optimizers": about,
    }  # fmt: skip


def _step(learner: Any, described: Any, params: Any, state: Any, gradients: Any) -> Any:
    """Do what `paxml.trainer_lib.train_step_single_learner` does with gradients."""
    no_gradient = tasks_lib.get_excluded_var_mask_for_grad(described, learner)
    no_state = tasks_lib.get_excluded_var_mask_for_opt(described, learner)
    neither = jax.tree_util.tree_map(lambda a, b: a and b, no_state, no_gradient)
    held = tasks_lib.filter_vars_for_grad_or_opt(params, neither)
    weights = tasks_lib.filter_vars_for_grad_or_opt(described, neither)
    gradients = tasks_lib.filter_vars_for_grad_or_opt(gradients, neither)
    gradients = jax.tree_util.tree_map(
        lambda excluded, g: g if not excluded else jax.tree_util.tree_map(np.zeros_like, g),
        no_gradient, gradients,
    )  # fmt: skip
    with base_layer.JaxContext.new_context(hparams=base_layer.JaxContext.HParams(do_eval=False)):
        if state is None:
            state = learner.get_grad_tx(weights).init(held)
        changes, state = learner.update_states(gradients, state, held, weights)
        held = learner.apply_gradient(held, changes, weights)
    return jax.tree_util.tree_map(
        lambda excluded, old, new: old if excluded else np.asarray(new), no_gradient, params, held
    ), state


def _hundred() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, about = {}, {}
    for name, (cls, fields) in HUNDRED_OPTIMIZERS.items():
        schedule = pax_fiddle.Config(schedules.LinearRampupCosineDecay, **HUNDRED_RATE)
        task, batch = _task(HUNDRED, pax_fiddle.Config(cls, lr_schedule=schedule, **fields))
        described = task.model.abstract_init_with_metadata(batch)
        state, *_ = trainer_lib.initialize_model_state(
            task, jax.random.PRNGKey(1), batch, discard_opt_states=False
        )
        if not arrays:
            variables = _shapes(_flat(state.mdl_vars))
            arrays["start"] = _packed(state.mdl_vars)
        step = jax.jit(
            functools.partial(
                trainer_lib.train_step_single_learner, task, var_weight_hparams=described
            )
        )
        losses, texts = [], []
        for number in range(100):
            words = np.random.RandomState(number).randint(1, 13, (2, TIME + 1)).astype(np.int32)
            words = np.sort(words, axis=1)  # something to learn
            batch.ids, batch.labels = words[:, :-1], words[:, 1:]
            texts.append(words.astype(np.int8))
            state, found = step(state, jax.random.PRNGKey(0), batch)
            losses.append(float(found.loss))
        arrays[f"{name}/losses"] = np.array(losses, np.float32)
        arrays[f"{name}/end"], arrays["words"] = _packed(state.mdl_vars), np.stack(texts)
        about[name] = {"class": cls.__name__, "optimizer": fields, "learner": {}}
    return arrays, {
        "schedule": HUNDRED_RATE, "sizes": HUNDRED, "variables": variables, "optimizers": about
    }


def _task(sizes: dict[str, Any], optimizer: Any) -> tuple[Any, Any]:
    """A task with the small model, and a batch."""
    shape = (2, TIME)
    batch = py_utils.NestedMap(
        ids=np.ones(shape, np.int32), labels=np.ones(shape, np.int32),
        paddings=np.zeros(shape, np.float32), weights=np.ones(shape, np.float32),
        segment_ids=np.ones(shape, np.int32),
        segment_pos=np.tile(np.arange(TIME, dtype=np.int32), (2, 1)),
        inputs_indicator=np.zeros(shape, np.int32),
    )  # fmt: skip
    variant = Variant("OptimizerSteps", "", settings=GPT | sizes, edits=(adam,))
    task = experiment_of(variant)().task()
    if optimizer is not None:
        task.train.learner.optimizer = optimizer
    return task.Instantiate(), batch


def _state(state: Any) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """(field -> variable -> values over all groups, the count on which all groups agree)."""
    groups = state if isinstance(state, dict) else {"": state}
    found: dict[str, dict[str, np.ndarray]] = {}
    counts = set()
    for group in groups.values():
        for path, value in jax.tree_util.tree_flatten_with_path(group)[0]:
            keys = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
            if "params" in keys:
                place = keys.index("params")
                value = value.astype(np.float32) if value.dtype == jnp.bfloat16 else value
                found.setdefault(keys[place - 1], {})["/".join(keys[place:])] = np.asarray(value)
            else:
                counts |= {int(number) for number in np.asarray(value).reshape(-1)}
    (count,) = counts
    return found, count


def _flat(tree: Any) -> dict[str, np.ndarray]:
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(key.key) for key in path): np.asarray(value) for path, value in found}


def _packed(tree: Any) -> np.ndarray:
    return np.concatenate([value.ravel() for value in _flat(tree).values()])


def _shapes(values: dict[str, np.ndarray]) -> list[tuple[str, list[int]]]:
    return [(name, list(value.shape)) for name, value in values.items()]


def _write(out: Path, name: str, arrays: Any, about: dict[str, Any]) -> None:
    about = {"versions": {"paxml": "1.4.0", "praxis": "1.4.0", "jax": jax.__version__}, **about}
    (out / f"{name}.json").write_text(json.dumps(about) + "\n")
    if arrays is not None:
        np.savez_compressed(out / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
