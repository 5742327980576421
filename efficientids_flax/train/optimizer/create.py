"""Optimizers for new runs: one function for all types, with clipping, weight decay and freezing.

    rate = create_learning_rate_schedule(1e-3, warmup_steps=100, total_steps=10_000)
    optimizer = create_optimizer(rate, "adamw", clip_grad_norm=1.0, frozen_params=["pretrained_lm"])

The order within a step: clip the trained parameters' gradients; the optimizer; learning rate and
weight decay; moving average of the parameters. (`learner.paxml_learner` continues the optimizer of
a PAXml job.)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from efficientids_flax.train.optimizer.freeze import Predicate, frozen_mask, matcher, train_only
from efficientids_flax.train.optimizer.kinds import KINDS, kind_of
from efficientids_flax.train.optimizer.praxis_schedules import Schedule
from efficientids_flax.train.optimizer.schedules import (
    ScheduleError,
    create_learning_rate_schedule,
    create_warmup_cosine_schedule,
)
from efficientids_flax.train.optimizer.updates import Decays, average_params, scheduled
from efficientids_flax.train.optimizer.variables import Model, variables_of
from efficientids_flax.tree import leaves_by_path, path_of

__all__ = [
    "KINDS",
    "Optimizer",
    "ScheduleError",
    "averaged_params",
    "create_learning_rate_schedule",
    "create_optimizer",
    "create_warmup_cosine_schedule",
]

Patterns = Sequence[str] | Predicate

# Parameters with these names (last part of the path) are not decayed, even if stacked over layers.
UNDECAYED = ("bias", "scale", "per_dim_scale")
WEIGHT_DECAY = 1e-4  # default for 'adamw'


class ByRow(NamedTuple):
    """An optimizer split into its clip and the rest, which can be applied to some rows of a table.

    Attributes:
        clip: (norm of all gradients, norm of this one, gradient or some rows of it) -> clipped.
        update: the optimizer after the clip; it has the whole optimizer's state.
        leaves: (path, value) of a parameter -> whether rows with zero gradient stay unchanged.
    """

    clip: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    update: optax.GradientTransformationExtraArgs
    leaves: Callable[[str, Any], bool]


class Optimizer(optax.GradientTransformationExtraArgs):
    """An optax transformation that carries its settings; `Trainer` reads them.

    Attributes:
        learning_rate: a number, or a function of the number of steps.
        frozen_params: patterns or a predicate of paths; None: not given.
        ema_decay: decay of the parameters' moving average; None: there is no average.
        made_of: type and settings, except the rate and what is frozen; None: unknown.
        by_row: its parts for sparse updates; None if the update of a row depends on other rows, or
            there is a moving average.
    """

    learning_rate: Schedule | float | None = None
    frozen_params: tuple[str, ...] | Predicate | None = None
    ema_decay: float | None = None
    made_of: Mapping[str, Any] | None = None
    by_row: ByRow | None = None


def create_optimizer(
    learning_rate: float | Schedule,
    optimizer_type: str = "adamw",
    weight_decay: float | None = None,
    clip_grad_norm: float | None = None,
    frozen_params: Patterns | None = None,
    *,
    clip_variable_norm: float | None = None,
    undecayed_params: Patterns | None = None,
    ema_decay: float | None = None,
    model: Model = None,
    **options: Any,
) -> Optimizer:
    """Make an optimizer, which can be given all parameters or only the trained ones.

    Frozen parameters have no state, do not count in clipping, are not decayed, and keep every bit.
    To save the computation of their gradients too, split them off before differentiating
    (`freeze.partition`, as in `Trainer`), and give the optimizer the trained part.

    Args:
        learning_rate: a number, or a function of the number of steps taken.
        optimizer_type: 'adam', 'adamw', 'sgd', 'adafactor' (optax), 'sharded_adafactor',
            'praxis_adam' (Praxis).
        weight_decay: decoupled, for every type: an update includes
            `-rate * weight_decay * parameter`. None: 1e-4 for 'adamw', 0 for the others.
        clip_grad_norm: largest global norm of the trained gradients.
        clip_variable_norm: largest norm of each parameter's gradient; excludes `clip_grad_norm`.
        frozen_params: patterns as in `freeze.matcher`, or a predicate on a parameter's path.
        undecayed_params: the same, for parameters without weight decay. None: those with fewer than
            two axes, and every `bias`, `scale` and `per_dim_scale`; (): all are decayed.
        ema_decay: keeps a moving average of the parameters, see `averaged_params`.
        model: the model's configuration, for Praxis' optimizers, which clip, factor and quantise
            each scanned layer by itself.
        **options: options of the type, see `KINDS`: `beta1`, `momentum`, ...

    Returns:
        An optax transformation. Its `init` raises `ValueError` if some patterns of frozen
        parameters match no parameter while others do. If no pattern matches, it assumes that it
        was given the trained parameters only, so it cannot detect a misspelt pattern then.

    Raises:
        ValueError: listing everything that is wrong.
    """
    kind, options = kind_of(optimizer_type, options)
    if weight_decay is None:
        weight_decay = WEIGHT_DECAY if optimizer_type == "adamw" else 0.0
    problems = _problems(
        optimizer_type, options, learning_rate, weight_decay,
        clip_grad_norm, clip_variable_norm, ema_decay,
    )  # fmt: skip
    if problems:
        raise ValueError(f"optimizer '{optimizer_type}': {'; '.join(problems)}")
    rate = _by_count(learning_rate)
    parts: list[tuple[str, Any]] = []
    if clip_grad_norm is not None:
        parts.append(("clip", optax.clip_by_global_norm(clip_grad_norm)))
    if clip_variable_norm is not None:
        parts.append(("clip", clip_by_variable_norm(clip_variable_norm)))
    parts.append((kind.name, kind.build(options, rate, variables_of(model))))
    decays = _decays(undecayed_params)
    parts.append(("schedule", scheduled(rate, kind.scaled, weight_decay, decays)))
    if ema_decay:
        parts.append(("ema", average_params(ema_decay)))
    patterns = (frozen_params,) if isinstance(frozen_params, str) else frozen_params
    made = Optimizer(*_frozen(optax.named_chain(*parts), patterns))
    made.learning_rate, made.ema_decay = learning_rate, ema_decay
    made.made_of = {
        "type": optimizer_type, **options, "weight_decay": weight_decay, "ema_decay": ema_decay,
        "clip_grad_norm": clip_grad_norm, "clip_variable_norm": clip_variable_norm,
        "undecayed_params": undecayed_params,
    }  # fmt: skip
    if kind.by_row(options) and not ema_decay:
        rest = [(name, part if name != "clip" else optax.identity()) for name, part in parts]
        made.by_row = ByRow(
            _clip(clip_grad_norm, clip_variable_norm),
            _frozen(optax.named_chain(*rest), patterns),
            lambda path, value: (
                optimizer_type == "sgd"
                and not options["momentum"]
                and not (weight_decay and decays(path, value))
            ),
        )
    made.frozen_params = patterns if patterns is None or callable(patterns) else tuple(patterns)
    return made


def averaged_params(opt_state: Any, params: Any) -> Any:
    """The parameters, replaced by their moving averages (cast to their dtypes) where these exist.

    The average is Praxis' `apply_ema_weights`, over the parameters before each update.

    Args:
        opt_state: state of an optimizer from `create_optimizer`, or of a converted checkpoint.
        params: all parameters, or the trained ones.

    Raises:
        ValueError: the state has no averages.
    """
    if not (isinstance(opt_state, Mapping) and isinstance(opt_state.get("ema"), optax.EmaState)):
        raise ValueError(
            "averages of the parameters: the optimizer was made without ema_decay; give it one, or"
            " leave evaluate_average out"
        )
    found = leaves_by_path(opt_state["ema"].ema)
    return jax.tree_util.tree_map_with_path(
        lambda keys, value: found.get(path_of(keys), value).astype(value.dtype), params
    )


def clip_by_variable_norm(limit: float) -> optax.GradientTransformation:
    """Each gradient times `min(1, limit / its norm)`.

    Args:
        limit: largest norm, over all elements of a parameter, scanned layers included.
    """

    def clip(gradient: jax.Array) -> jax.Array:
        norm = jnp.sqrt(jnp.sum(jnp.square(gradient.astype(jnp.float32))))
        return gradient * jnp.minimum(1.0, limit / norm).astype(gradient.dtype)

    return optax.stateless(lambda updates, params: jax.tree.map(clip, updates))


def _clip(of_all: float | None, of_each: float | None) -> Callable[..., jax.Array]:
    """The clip as a function of the norms, for a gradient or some of its rows; see `ByRow`."""

    def clip(norm: jax.Array, own: jax.Array, gradient: jax.Array) -> jax.Array:
        if of_all is not None:  # in the order of optax' arithmetic
            scaled = gradient / norm.astype(gradient.dtype) * of_all
            return jnp.where(norm < of_all, gradient, scaled)
        if of_each is not None:
            return gradient * jnp.minimum(1.0, of_each / own).astype(gradient.dtype)
        return gradient

    return clip


def _problems(
    name: str,
    options: Mapping[str, Any],
    learning_rate: float | Schedule,
    weight_decay: float,
    clip_grad_norm: float | None,
    clip_variable_norm: float | None,
    ema_decay: float | None,
) -> list[str]:
    """One sentence for each value that is wrong."""
    given = {**options, "ema_decay": ema_decay}
    rates = ("beta1", "beta2", "momentum", "decay_adam", "ema_decay")
    found = [
        f"{key}: expected in [0, 1), found {value}"
        for key in rates
        if (value := given.get(key)) is not None and not 0 <= value < 1
    ]
    if not callable(learning_rate) and not 0 <= learning_rate < float("inf"):
        found.append(f"learning_rate: expected at least 0, found {learning_rate}")
    if not 0 <= weight_decay < float("inf"):
        found.append(f"weight_decay: expected at least 0, found {weight_decay}")
    clips = {"clip_grad_norm": clip_grad_norm, "clip_variable_norm": clip_variable_norm}
    found += [
        f"{key}: expected above 0, found {value}; None is no clip"
        for key, value in clips.items()
        if value is not None and not value > 0
    ]
    if None not in clips.values():
        found.append("clip_variable_norm: excludes clip_grad_norm")
    if name == "sgd" and options["nesterov"] and not options["momentum"]:
        found.append("nesterov: needs momentum")
    return found


def _by_count(learning_rate: float | Schedule) -> Schedule:
    if callable(learning_rate):
        return learning_rate
    return lambda count: jnp.float32(learning_rate)


def _decays(undecayed: Patterns | None) -> Decays:
    """The predicate of the parameters that weight decay acts on."""
    if undecayed is None:
        return lambda path, value: value.ndim > 1 and path.split("/")[-1] not in UNDECAYED
    if not callable(undecayed):
        undecayed = matcher((undecayed,) if isinstance(undecayed, str) else undecayed)
    return lambda path, value: not undecayed(path)


def _frozen(
    transform: optax.GradientTransformationExtraArgs, frozen: Patterns | None
) -> optax.GradientTransformationExtraArgs:
    """The transformation, restricted to the parameters that are not frozen."""
    if not frozen:
        return transform
    fits = frozen if callable(frozen) else matcher(frozen)
    inner = train_only(transform, lambda path: not fits(path))

    def init(params: Any) -> Any:
        paths = leaves_by_path(params)
        if any(map(fits, paths)):
            if all(map(fits, paths)):
                raise ValueError("frozen parameters: all are frozen, nothing is left to train")
            if not callable(frozen):
                frozen_mask(params, frozen)
        return inner.init(params)

    return optax.GradientTransformationExtraArgs(init, inner.update)
