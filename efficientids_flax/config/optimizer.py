"""How a model is trained: Praxis' learner, optimizer and schedule as one record.

Names follow Praxis (`paxml.learners.Learner`, `praxis.optimizers`, `praxis.schedules` 1.4.0).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from efficientids_flax.config.record import Record, positive, unknown_key

_LINE = {"power": 1, "start": (0, 1.0), "limit": (1, 1.0), "origin": "start"}
_RAMP = {"warmup_steps": 0, "decay_start": 0, "decay_end": 0, "min_ratio": 0.01, "max": 0.0}
_PIECES = {"boundaries": (), "values": ()}

# fmt: off
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    # kind                              parameters and Praxis' defaults
    "constant":                         {"value": 1.0},
    "linear":                           _LINE,
    "polynomial":                       _LINE,
    "exponential":                      {"start": (0, 1.0), "limit": (1, 0.5)},
    "cosine":                           {"initial_value": 1.0, "final_value": 0.0,
                                         "total_steps": 0},
    "delayed_cosine":                   {"start": (0, 1.0), "limit": (1, 0.5)},
    "linear_rampup_polynomial_decay":   {**_RAMP, "power": 1},
    "linear_rampup_cosine_decay":       _RAMP,
    "linear_rampup_exponential_decay":  _RAMP,
    "linear_rampup_sqrt_decay":         {"peak": 1.0, "warmup_steps": 4000},
    "linear_rampup_piecewise_constant": _PIECES,
    "piecewise_constant":               _PIECES,
    "transformer":                      {"warmup_steps": 4000, "model_dim": 512,
                                         "worker_replicas": 1, "decay_end": None},
    "sqrt_decay":                       {"decay_start": 10_000, "multiplier": 1.0, "offset": 0.0},
    "continuous":                       {"initial_value": 1.0, "start_step": 400_000,
                                         "half_life_steps": 100_000, "min": 0.01},
}
# fmt: on


@dataclass(frozen=True)
class ScheduleConfig(Record):
    """A learning-rate schedule; its value multiplies `OptimizerConfig.learning_rate`.

    Attributes:
        kind: a key of `SCHEDULES`: a Praxis class in snake case.
        parameters: parameters of the kind; those left out take Praxis' defaults.
    """

    kind: str = "constant"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the defaults of the kind, then check."""
        if isinstance(self.parameters, Mapping):
            given = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in self.parameters.items()
            }
            defaults = SCHEDULES.get(self.kind, {}) if isinstance(self.kind, str) else {}
            object.__setattr__(self, "parameters", {**defaults, **given})
        super().__post_init__()

    def problems(self) -> Collection[str]:
        """The kind exists and has these parameters."""
        if self.kind not in SCHEDULES:
            return [unknown_key(self.kind, SCHEDULES).replace("unknown key", "unknown kind")]
        known = SCHEDULES[self.kind]
        found = [
            f"parameters: {unknown_key(name, known)}"
            for name in self.parameters
            if name not in known
        ]
        return found or [
            f"parameters: {name}: expected a {_kind(known[name])}, found {value!r}"
            for name, value in self.parameters.items()
            if _kind(value) != _kind(known[name]) and not (known[name] is None and value)
        ]


@dataclass(frozen=True)
class OptimizerConfig(Record):
    """One learner of PAXml: optimizer, schedule, clips, freezing. None: not known, unless stated.

    Attributes:
        name: 'adam' (Praxis `Adam`: moments stored bias-corrected), 'sharded_adafactor', 'sgd'.
        learning_rate, schedule: rate(step) = learning_rate * schedule(step).
        beta1, beta2: decay of the first and (Adam) the second moment.
        epsilon, epsilon_root: Adam's epsilons outside and inside of the root.
        clip_threshold: Adam and Adafactor divide an update by max(1, RMS / clip_threshold).
        weight_decay: decoupled, times the rate; `weight_decay_by_pattern` overrides it for
            variables whose path matches a regex.
        decoupled_weight_decay, l1_regularizer_weight, l2_regularizer_weight, skip_lp_1d_vectors:
            options that every Praxis optimizer has; None is off.
        clip_gradient_norm_to_value, clip_gradient_single_norm_to_value: clip gradients by their
            global norm, or each by its own; 0 is off.
        ema_decay: decay of the average of the parameters before each update; 0 is off.
        momentum, nesterov: options of SGD.
        decay_method, decay_adam, decay_pow, factored, epsilon1, epsilon2, quantized_dtype,
            layerwise_adaptation, exclude_from_layerwise_adaptation, multiply_by_parameter_scale,
            sort_factored_second_moment_dims, min_dim_size_to_factor,
            respect_skip_lp_regularization: options of ShardedAdafactor; `epsilon1` regularises the
            squared gradient, `epsilon2` the parameter scale.
        maybe_inf_to_nan: updates pass through nan_to_num.
        bprop_variable_exclusion, bprop_variable_inclusion: regexes of frozen / trained variables.
        keep_optimizer_state_for_excluded_vars: frozen variables have moments too.
        skip_step_gradient_norm_value: steps with a larger gradient norm are skipped; 0 is off.
        skip_step_on_gradient_anomalies: steps with NaN or Inf are skipped.
        vectorize_on_repeat_prefix: each of the stacked layers counts as a separate variable.
        scale_update_by_var_norm: updates are scaled by the variable's first norm.
    """

    name: Literal["adam", "sharded_adafactor", "sgd"]
    learning_rate: float | None = None
    schedule: ScheduleConfig | None = None
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None
    epsilon_root: float = 0.0
    clip_threshold: float | None = None
    weight_decay: float = 0.0
    weight_decay_by_pattern: tuple[tuple[str, float], ...] = ()
    decoupled_weight_decay: float | None = None
    l1_regularizer_weight: float | None = None
    l2_regularizer_weight: float | None = None
    skip_lp_1d_vectors: bool = False
    clip_gradient_norm_to_value: float = 0.0
    clip_gradient_single_norm_to_value: float = 0.0
    ema_decay: float = 0.0
    momentum: float | None = None
    nesterov: bool = False
    decay_method: Literal["adam", "pow", ""] = ""
    decay_adam: float | None = None
    decay_pow: float | None = None
    factored: bool = True
    epsilon1: float = 1e-30
    epsilon2: float = 1e-3
    quantized_dtype: Literal["int8", "int16", "bfloat16", "float32"] = "int8"
    layerwise_adaptation: bool = False
    exclude_from_layerwise_adaptation: tuple[str, ...] = ()
    multiply_by_parameter_scale: bool = False
    sort_factored_second_moment_dims: bool = False
    min_dim_size_to_factor: int = 128
    respect_skip_lp_regularization: bool = False
    maybe_inf_to_nan: bool = True
    bprop_variable_exclusion: tuple[str, ...] = ()
    bprop_variable_inclusion: tuple[str, ...] = ()
    keep_optimizer_state_for_excluded_vars: bool = False
    skip_step_gradient_norm_value: float = 0.0
    skip_step_on_gradient_anomalies: bool = True
    vectorize_on_repeat_prefix: bool = True
    scale_update_by_var_norm: bool = False

    def problems(self) -> Collection[str]:
        """Decays are in [0, 1), clips are not negative; the two clips exclude each other."""
        found = [
            f"{name}: expected in [0, 1), found {value}"
            for name in ("beta1", "beta2", "decay_adam", "momentum", "ema_decay")
            if (value := getattr(self, name)) is not None and not 0 <= value < 1
        ]
        found += positive(self, "clip_threshold")
        found += [
            f"{name}: expected at least 0, found {value}"
            for name in (
                "clip_gradient_norm_to_value",
                "clip_gradient_single_norm_to_value",
                "skip_step_gradient_norm_value",
            )
            if (value := getattr(self, name)) < 0
        ]
        if self.clip_gradient_norm_to_value and self.clip_gradient_single_norm_to_value:
            found.append("clip_gradient_single_norm_to_value: excludes clip_gradient_norm_to_value")
        return found


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "list"
    if isinstance(value, bool):
        return "truth value"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "null"
