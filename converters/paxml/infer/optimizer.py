"""Infers how the model was trained from dump and flags: learner, optimizer and schedule of Praxis.

See `learners.Learner` and `MultiOptimizerLearner` of paxml 1.4.0, `optimizers` and `schedules` of
praxis 1.4.0.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from converters.errors import MappingError, UnclearModelError
from converters.paxml.infer.facts import Published
from converters.paxml.infer.flags import OPTIMIZER, read_flags
from converters.paxml.infer.hparams import EXPERIMENT, Symbol
from converters.paxml.infer.model import provenance
from efficientids_flax.config import OptimizerConfig
from efficientids_flax.config.optimizer import SCHEDULES
from efficientids_flax.settings import ASSUMED, DUMP, GIVEN, TREE
from efficientids_flax.tree import unflatten

LEARNER = "train.learner"
CLASSES = {
    "Adam": "adam",
    "ShardedAdafactor": "sharded_adafactor",
    "Sgd": "sgd",
    "ShardedSgd": "sgd",
}

SEVERAL = ("MultiOptimizerLearner",)  # learners with several optimizers; we cannot configure these

COMMON = {  # praxis.optimizers.BaseOptimizer: field -> its default
    "learning_rate": 0.0,
    "decoupled_weight_decay": None,
    "l1_regularizer_weight": None,
    "l2_regularizer_weight": None,
    "skip_lp_1d_vectors": False,
    "clip_gradient_norm_to_value": 0.0,
    "clip_gradient_single_norm_to_value": 0.0,
    "ema_decay": 0.0,
}
OWN = {
    "adam": {
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-6,
        "epsilon_root": 0.0,
        "clip_threshold": 1.0,
        "weight_decay": 0.0,
        "maybe_inf_to_nan": True,
    },
    "sharded_adafactor": {
        "beta1": 0.0,
        "clip_threshold": 1.0,
        "weight_decay": None,
        "decay_method": "",
        "decay_adam": 0.0,
        "decay_pow": 0.0,
        "factored": True,
        "epsilon1_grad_sq_reg": 1e-30,
        "epsilon2_param_scale_reg": 1e-3,
        "quantized_dtype": "int8",
        "layerwise_adaptation": False,
        "exclude_from_layerwise_adaptation": (),
        "multiply_by_parameter_scale": False,
        "sort_factored_second_moment_dims": False,
        "min_dim_size_to_factor": 128,
        "respect_skip_lp_regularization": False,
        "maybe_inf_to_nan": True,
    },
    "sgd": {"momentum": None, "nesterov": False},
}
# Praxis uses these numbers only above a limit: `if update_capping > 0`, and in Adafactor max(1, RMS
# / clip_threshold), which is 1 for any threshold below 0.
OFF: Mapping[str, Mapping[str, float]] = {
    "adam": {"clip_threshold": 0.0, "weight_decay": 0.0, "ema_decay": 0.0},
    "sharded_adafactor": {"clip_threshold": -1e-38, "ema_decay": 0.0},
    "sgd": {"ema_decay": 0.0},
}
LEARNER_FIELDS = {  # paxml.learners.Learner
    "bprop_variable_exclusion": (),
    "bprop_variable_inclusion": (),
    "keep_optimizer_state_for_excluded_vars": False,
    "skip_step_gradient_norm_value": 0.0,
    "enable_skip_step_on_gradient_anomalies": True,
    "vectorize_on_repeat_prefix": True,
    "scale_update_by_var_norm": False,
}
RENAMED = {
    "epsilon1_grad_sq_reg": "epsilon1",
    "epsilon2_param_scale_reg": "epsilon2",
    "enable_skip_step_on_gradient_anomalies": "skip_step_on_gradient_anomalies",
}
EXPERIMENT_VARS = (
    # key                          class variable
    ("learning_rate", "LEARNING_RATE"),
    ("weight_decay", "WEIGHT_DECAY"),
    ("clip_gradient_norm_to_value", "CLIP_GRADIENT_NORM_TO_VALUE"),
    ("bprop_variable_exclusion", "BPROP_VARIABLE_EXCLUSION"),
)
SAYS = {TREE: "the tree says", GIVEN: "a flag says", DUMP: "the dump says"}
LISTS = (
    "bprop_variable_exclusion",
    "bprop_variable_inclusion",
    "exclude_from_layerwise_adaptation",
)


def infer_optimizer(
    dump: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    name: str | None = None,
    learner: int = 0,
    published: Published | None = None,
    states: Collection[str] = (),
) -> tuple[OptimizerConfig | None, dict[str, dict[str, Any]]]:
    """Infer the configuration of one learner, and the origin of each value.

    A value that neither dump nor flag gives stays None (beta1, beta2, epsilon, learning_rate,
    schedule …); code that needs it must raise. Without a dump, other fields have Praxis' defaults.

    Args:
        dump: result of `read_hparams`; None without a dump.
        overrides: all flags; only those that begin with `optimizer.` are used here.
        name: the optimizer that the tree's states show, if known.
        learner: number of the learner.
        published: settings of published experiments; weaker than the dump and the tree.
        states: kinds of the states in the tree, see `optimizer_kinds`.

    Returns:
        (configuration, provenance). (None, provenance of "name" alone) if the optimizer is unknown
        or is not one of ours.

    Raises:
        MappingError: unknown or invalid flags, or the dump or a flag names another optimizer than
            the tree.
        UnclearModelError: the same without any optimizer flags, or the dump has values that no
            learner accepts.
    """
    values = dump or {}
    problems: list[str] = []
    flags = read_flags(OptimizerConfig, overrides or {}, problems, prefix=OPTIMIZER)
    root = f"{LEARNER}[{learner}]" if f"{LEARNER}[{learner}].optimizer.cls" in values else LEARNER
    here = f"{root}.optimizer.cls" in values and (learner == 0 or root != LEARNER)
    cls = values.get(f"{root}.optimizer.cls") if here else None
    said = CLASSES.get(cls.name) if isinstance(cls, Symbol) else None
    given = [
        (origin, value)
        for origin, value in ((TREE, name), (GIVEN, flags.get("name")), (DUMP, said))
        if value is not None
    ]
    if len({value for _, value in given}) > 1:
        problems.append(
            "optimizer.name: " + ", ".join(f"{SAYS[origin]} {value!r}" for origin, value in given)
        )
    if problems:
        asked = any(key.startswith(OPTIMIZER) for key in overrides or {})
        fault = MappingError if asked else UnclearModelError
        raise fault("\n  ".join([f"{len(problems)} problem(s):", *problems]))
    learner_cls = values.get(f"{root}.cls")
    if isinstance(learner_cls, Symbol) and learner_cls.name in SEVERAL and "name" not in flags:
        return None, {"name": {"value": str(learner_cls), "from": DUMP}}
    if not given and published is not None and published.learner:
        given = [(published.origin, published.learner["name"])]
    if not given or (cls is not None and said is None and "name" not in flags):
        return None, {
            "name": {"value": None if cls is None else str(cls), "from": DUMP}
        } if cls else {}

    chosen: dict[str, tuple[Any, str]] = {"name": (given[0][1], given[0][0])}
    kind = given[0][1]
    if said is not None:
        optimizer = {f"optimizer.{name}": value for name, value in {**COMMON, **OWN[kind]}.items()}
        for path, default in {**optimizer, **LEARNER_FIELDS}.items():
            full, name = f"{root}.{path}", path.removeprefix("optimizer.")
            value = values.get(full, default)
            if name in LISTS:
                value = [value] if isinstance(value, str) else list(value or ())
            if value is not None:
                chosen[RENAMED.get(name, name)] = (value, DUMP)
        for key, limit in OFF[kind].items():
            if isinstance(value := chosen.get(key, (None,))[0], int | float) and value <= limit:
                del chosen[key]
        if values.get(f"{root}.optimizer.sharded_adam") is False:  # optax.adam has neither setting
            chosen["weight_decay"] = (0.0, DUMP)
            chosen.pop("clip_threshold", None)
        patterns = _patterns(values, f"{root}.optimizer.weight_decay.")
        if patterns:
            chosen["weight_decay_by_pattern"] = (patterns, DUMP)
        if schedule := _schedule(values, f"{root}.optimizer.lr_schedule"):
            chosen["schedule"] = (schedule, DUMP)
    else:
        if published is not None and published.learner.get("name") == kind:
            own = {key: v for key, v in published.learner.items() if key != "name"}
            chosen |= {key: (value, published.origin) for key, value in own.items()}
        for key, variable in EXPERIMENT_VARS:
            if (value := values.get(EXPERIMENT + variable)) is not None:
                chosen[key] = (value, DUMP)
    if said is None and states and "ema" not in states:
        chosen.setdefault("ema_decay", (0.0, TREE))
    for key, value in flags.items():
        for other in [k for k in chosen if key.startswith(f"{k}.")]:
            inner = chosen.pop(other)
            chosen.update({f"{other}.{part}": (v, inner[1]) for part, v in inner[0].items()})
        chosen[key] = (value, GIVEN)
    try:
        made = OptimizerConfig.from_dict(
            unflatten({key: value for key, (value, _) in chosen.items()}, separator=".")
        )
    except ValueError as error:
        fault = MappingError if flags else UnclearModelError
        raise fault(f"the optimizer's configuration is not valid: {error}") from error
    origins = {key: origin for key, (_, origin) in chosen.items()}
    if made.schedule is None:  # every learner has a schedule, so this one is unknown
        origins["schedule"] = ASSUMED
    # A dump of the learner is complete: a path that it lacks has Praxis' default.
    return made, provenance(made, origins, ASSUMED if said is None else DUMP)


def _schedule(values: Mapping[str, Any], root: str) -> dict[str, Any] | None:
    """Kind and parameters of the schedule; None if it is composed of others, or unknown."""
    cls = values.get(f"{root}.cls")
    if not isinstance(cls, Symbol):
        return None
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.name.removesuffix("Schedule")).lower()
    if kind not in SCHEDULES:
        return None
    parameters = {
        name: values[f"{root}.{name}"] for name in SCHEDULES[kind] if f"{root}.{name}" in values
    }
    return {"kind": kind, "parameters": parameters}


def _patterns(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """(regex, weight decay) pairs, if the dump has a dictionary instead of a number."""
    return [(p.removeprefix(prefix), v) for p, v in values.items() if p.startswith(prefix)]
