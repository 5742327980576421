"""A PAXml learner as one optax transformation: `paxml.learners.Learner` 1.4.0.

    params, state, config = load_converted(out)
    learner = paxml_learner(config.optimizer, config.model)
    updates, chain = learner.update(gradients, state.optimizer, params)
    params = optax.apply_updates(params, updates)

The order within a step: clip the trained parameters' gradients; l1 and l2; the optimizer; the
learning rate; decoupled weight decay; moving average of the parameters.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.settings import NEEDED
from efficientids_flax.train.optimizer.adafactor import sharded_adafactor
from efficientids_flax.train.optimizer.adam import scale_by_adam
from efficientids_flax.train.optimizer.clipping import clip_gradients
from efficientids_flax.train.optimizer.freeze import Predicate, train_only, unchanged
from efficientids_flax.train.optimizer.praxis_schedules import Schedule, schedule
from efficientids_flax.train.optimizer.updates import average_params, scheduled
from efficientids_flax.train.optimizer.variables import Model, Variable, Variables, variables_of
from efficientids_flax.tree import flatten, unflatten


def paxml_learner(
    config: OptimizerConfig, model: Model, names: Mapping[str, str] | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a converted run, whose steps equal PAXml's exactly.

    A step whose global gradient norm is not finite (or above the configured limit) changes neither
    parameters nor state, including counts, unless `skip_step_on_gradient_anomalies` is off.
    `update(..., loss=loss)` also skips a step whose loss is not finite.

    Args:
        config: the optimizer's configuration.
        model: the model's configuration, which gives PAXml's names of its parameters; None for a
            tree that already has these names.
        names: see `variables_of`.

    Returns:
        A transformation with the state in `load_converted(out).optimizer_state.optimizer`.
        Gradients and params may hold all parameters, or only the trained ones.

    Raises:
        ValueError: a value is missing in the configuration, or there is no such optimizer. `update`
            raises if the state does not have the trained parameters.
    """
    if missing := [name for name in NEEDED[config.name] if getattr(config, name) is None]:
        raise ValueError(
            f"optimizer '{config.name}': {', '.join(missing)} not known; the job's dump was not"
            " there when it was converted: convert with --job-files DIR or --set beta1=..., give"
            " them as model.learner in the run's configuration, or with dataclasses.replace"
        )
    if config.scale_update_by_var_norm:
        raise ValueError(
            "scale_update_by_var_norm: not supported; it needs the initialisers of the original"
        )
    variables = variables_of(model, config.vectorize_on_repeat_prefix, names)
    if _regularizes(config) and model is None:
        raise ValueError(
            "l1_regularizer_weight, l2_regularizer_weight and decoupled_weight_decay leave out the"
            " scales of LayerNorm: which those are, the model's configuration must say; found none"
        )
    excluded = excluded_by(config, variables)
    chain = optax.named_chain(*_transforms(config, variables))

    def kept(path: str) -> bool:
        return config.keep_optimizer_state_for_excluded_vars or not excluded(path)

    def update(
        updates: Any, state: Any, params: Any = None, *, loss: jax.Array | None = None, **_: Any
    ) -> tuple[Any, Any]:
        flat, values = flatten(updates), flatten(params)
        _check(state, chain.init({}), set(flat), set(values))
        flat = {p: jnp.zeros_like(values[p]) if excluded(p) else g for p, g in flat.items()}
        flat, valid = clip_gradients(flat, config, variables)
        valid = valid if loss is None else valid & jnp.isfinite(loss)
        flat = {p: _regularized(config, variables(p), g, values[p]) for p, g in flat.items()}
        updates, new = chain.update(unflatten(flat), state, params)
        if config.skip_step_on_gradient_anomalies:
            updates = jax.tree.map(lambda u: jnp.where(valid, u, unchanged(u)), updates)
            new = jax.tree.map(lambda n, o: jnp.where(valid, n, o), new, state)
        updates = {p: unchanged(u) if excluded(p) else u for p, u in flatten(updates).items()}
        return unflatten(updates), new

    return train_only(optax.GradientTransformationExtraArgs(chain.init, update), kept)


def excluded_by(config: OptimizerConfig, variables: Variables) -> Predicate:
    """The predicate of frozen parameters, from PAXml's regexes, which match the whole name."""
    if config.bprop_variable_inclusion:
        included = [re.compile(pattern) for pattern in config.bprop_variable_inclusion]
        return lambda path: not any(p.fullmatch(variables(path).name) for p in included)
    patterns = [re.compile(pattern) for pattern in config.bprop_variable_exclusion]
    return lambda path: any(p.fullmatch(variables(path).name) for p in patterns)


def learning_rate(config: OptimizerConfig) -> Schedule:
    """The learning rate as a function of the count: the schedule times the base rate."""
    if config.schedule is None or config.learning_rate is None:
        raise ValueError("learning_rate and schedule: not known; found None")
    value, base = schedule(config.schedule), config.learning_rate
    return lambda count: value(count) * base


def _transforms(
    config: OptimizerConfig, variables: Variables
) -> list[tuple[str, optax.GradientTransformationExtraArgs]]:
    """The transformations of the chain, named and ordered as in a converted state."""
    rate = learning_rate(config)
    found: list[tuple[str, Any]] = []
    if config.name == "adam":
        found.append(("adam", scale_by_adam(config, variables)))
    elif config.name == "sharded_adafactor":
        found.append(("sharded_adafactor", sharded_adafactor(config, rate, variables)))
    elif config.momentum is not None:
        found.append(("momentum", optax.trace(config.momentum, config.nesterov)))
    scaled, decay = config.name == "sharded_adafactor", config.decoupled_weight_decay or 0.0

    def decays(path: str, value: jax.Array) -> bool:
        return bool(variables(path).regularized)

    found.append(("schedule", scheduled(rate, scaled, decay, decays)))
    if config.ema_decay:
        found.append(("ema", average_params(config.ema_decay)))
    return found


def _regularizes(config: OptimizerConfig) -> bool:
    return any((
        config.l1_regularizer_weight, config.l2_regularizer_weight, config.decoupled_weight_decay,
    ))  # fmt: skip


def _regularized(
    config: OptimizerConfig, variable: Variable, gradient: jax.Array, parameter: jax.Array
) -> jax.Array:
    """The gradient plus those of the l1 and l2 terms."""
    if config.skip_lp_1d_vectors and parameter.ndim - variable.stacked <= 1:
        return gradient
    if variable.regularized and (weight := config.l1_regularizer_weight):
        gradient = gradient + weight * jnp.sign(parameter)
    if variable.regularized and (weight := config.l2_regularizer_weight):
        gradient = gradient + weight * parameter
    return gradient


def _check(state: Any, wanted: Any, gradients: set[str], params: set[str]) -> None:
    """Check that the state belongs to this optimizer and these parameters."""
    if set(state) != set(wanted):
        raise ValueError(
            f"the state has {', '.join(state)}; this optimizer has {', '.join(wanted)}"
        )
    if missing := sorted(params - gradients) + sorted(gradients - params):
        raise ValueError(
            f"{missing[0]}: gradients and parameters must both have each of the trained ones"
            f" ({len(missing)} differ)"
        )
    for name, transform in state.items():
        for field, values in transform._asdict().items():
            if field == "count":
                continue
            if differ := sorted(set(flatten(values)) ^ gradients):
                which = "is frozen" if differ[0] not in gradients else "has no state"
                raise ValueError(
                    f"{name}/{field}: {differ[0]} {which} ({len(differ)} differ): is"
                    " bprop_variable_exclusion that of the job?"
                )
