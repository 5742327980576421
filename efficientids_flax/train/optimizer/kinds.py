"""The types of optimizers that `create_optimizer` makes: optax' own, and Praxis'."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import optax

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.config.record import unknown_key
from efficientids_flax.train.optimizer.adafactor import sharded_adafactor
from efficientids_flax.train.optimizer.adam import scale_by_adam
from efficientids_flax.train.optimizer.praxis_schedules import Schedule
from efficientids_flax.train.optimizer.variables import Variables


class Kind(NamedTuple):
    """One type of optimizer.

    Attributes:
        name: name of its state in the optax chain.
        build: (options, rate, variables) -> transformation from gradients to directions.
        options: its options, with defaults.
        scaled: whether its directions already include the (negative) learning rate.
        by_row: (options) -> whether the update of a row depends on that row alone.
    """

    name: str
    build: Callable[[Mapping[str, Any], Schedule, Variables], Any]
    options: Mapping[str, Any]
    scaled: bool = False
    by_row: Callable[[Mapping[str, Any]], bool] = lambda options: True


def _adam(options: Mapping[str, Any], rate: Schedule, variables: Variables) -> Any:
    del rate, variables
    return optax.scale_by_adam(
        options["beta1"], options["beta2"], options["epsilon"], options["epsilon_root"],
        nesterov=options["nesterov"],
    )  # fmt: skip


def _sgd(options: Mapping[str, Any], rate: Schedule, variables: Variables) -> Any:
    del rate, variables
    momentum = options["momentum"]
    return optax.trace(momentum, options["nesterov"]) if momentum else optax.identity()


def _adafactor(options: Mapping[str, Any], rate: Schedule, variables: Variables) -> Any:
    del variables
    return optax.adafactor(
        rate,
        min_dim_size_to_factor=options["min_dim_size_to_factor"],
        decay_rate=options["decay_pow"],
        multiply_by_parameter_scale=options["multiply_by_parameter_scale"],
        clipping_threshold=options["clip_threshold"],
        momentum=options["beta1"] or None,
        eps=options["epsilon1"],
        factored=options["factored"],
    )


def _sharded_adafactor(options: Mapping[str, Any], rate: Schedule, variables: Variables) -> Any:
    return sharded_adafactor(OptimizerConfig("sharded_adafactor", **options), rate, variables)


def _praxis_adam(options: Mapping[str, Any], rate: Schedule, variables: Variables) -> Any:
    del rate
    return scale_by_adam(OptimizerConfig("adam", **options), variables)


def _defaults(*names: str, **given: Any) -> dict[str, Any]:
    """Defaults of some fields of `OptimizerConfig`, with others given."""
    known = {field.name: field.default for field in fields(OptimizerConfig)}
    return {name: known[name] for name in names} | given


_ADAM = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "epsilon_root": 0.0, "nesterov": False}

# fmt: off
KINDS: Mapping[str, Kind] = {
    # type               state, options and their defaults
    "adam":              Kind("adam", _adam, _ADAM),
    "adamw":             Kind("adam", _adam, _ADAM),
    "sgd":               Kind("momentum", _sgd, {"momentum": 0.9, "nesterov": False}),
    "adafactor":         Kind("adafactor", _adafactor, {
        "beta1": None, "decay_pow": 0.8, "clip_threshold": 1.0, "epsilon1": 1e-30, "factored": True,
        "multiply_by_parameter_scale": True, "min_dim_size_to_factor": 128},
        scaled=True, by_row=lambda options: False),
    # Praxis' `HParamsAdamB`.
    "sharded_adafactor": Kind("sharded_adafactor", _sharded_adafactor, _defaults(
        "decay_pow", "factored", "epsilon1", "epsilon2", "quantized_dtype", "layerwise_adaptation",
        "exclude_from_layerwise_adaptation", "multiply_by_parameter_scale",
        "sort_factored_second_moment_dims", "min_dim_size_to_factor", "maybe_inf_to_nan",
        beta1=0.9, decay_method="adam", decay_adam=0.98, clip_threshold=1.0),
        scaled=True, by_row=lambda options: False),
    "praxis_adam":       Kind("adam", _praxis_adam, _defaults(
        "epsilon_root", "maybe_inf_to_nan",
        beta1=0.9, beta2=0.999, epsilon=1e-6, clip_threshold=1.0),
        by_row=lambda options: not options["clip_threshold"]),
}
# fmt: on


def kind_of(name: str, options: Mapping[str, Any]) -> tuple[Kind, dict[str, Any]]:
    """The type, and its options completed with defaults.

    Raises:
        ValueError: there is no such type, or it has no such option.
    """
    if name not in KINDS:
        raise ValueError(f"optimizer '{name}': unknown; known are {', '.join(KINDS)}")
    known = KINDS[name].options
    if wrong := [unknown_key(option, known) for option in options if option not in known]:
        raise ValueError(
            f"optimizer '{name}': {'; '.join(wrong)} (it has {', '.join(known) or 'none'})"
        )
    return KINDS[name], {**known, **options}
