"""The settings of a learner that change its next step and that its state does not show.

Names and defaults: `OptimizerConfig`, `paxml.learners.Learner` 1.4.0.
"""

from collections.abc import Mapping
from typing import Any

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.settings.origins import ASSUMED, origin_of

NEEDED: Mapping[str, tuple[str, ...]] = {
    "adam": ("learning_rate", "schedule", "beta1", "beta2", "epsilon"),
    "sharded_adafactor": ("learning_rate", "schedule", "beta1"),
    "sgd": ("learning_rate", "schedule"),
}
"""Optimizer -> fields for which no value can be assumed; None means 'not known'."""
_COMMON = (
    "weight_decay", "decoupled_weight_decay", "l1_regularizer_weight", "l2_regularizer_weight",
    "clip_gradient_norm_to_value", "clip_gradient_single_norm_to_value", "ema_decay",
    "bprop_variable_exclusion", "bprop_variable_inclusion", "skip_step_gradient_norm_value",
    "scale_update_by_var_norm",
)  # fmt: skip
OPEN_OPTIMIZER: Mapping[str, tuple[str, ...]] = {
    "adam": (*NEEDED["adam"], "epsilon_root", "clip_threshold", *_COMMON),
    "sharded_adafactor": (
        *NEEDED["sharded_adafactor"], "decay_method", "decay_adam", "decay_pow", "clip_threshold",
        "epsilon1", "epsilon2", "factored", "min_dim_size_to_factor", "layerwise_adaptation",
        "multiply_by_parameter_scale", *_COMMON,
    ),
    "sgd": (*NEEDED["sgd"], "momentum", "nesterov", *_COMMON),
}  # fmt: skip
"""Optimizer -> the fields of `OptimizerConfig` that change its next step."""


def assumed_optimizer(config: OptimizerConfig, origins: Mapping[str, str]) -> dict[str, Any]:
    """The assumed settings of a learner that change its next step.

    Args:
        config: configuration of the learner.
        origins: dotted key -> origin; absent keys are assumed.

    Returns:
        Field -> assumed value, as JSON; None for a field of `NEEDED`: not known.
    """
    values = config.to_dict()
    return {
        field: values[field]
        for field in OPEN_OPTIMIZER[config.name]
        # Only the kind of a schedule counts: parameters not given are the kind's defaults.
        if origin_of(origins, f"{field}.kind" if field == "schedule" else field) == ASSUMED
    }
