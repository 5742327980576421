"""The optimizer of a run, and the schedule of a run that is resumed with another length."""

from collections.abc import Callable
from typing import Any

import optax

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.train.directory import opened
from efficientids_flax.train.logs import tell
from efficientids_flax.train.optimizer import (
    create_learning_rate_schedule,
    create_optimizer,
    frozen_parameters,
)
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.run.config import WARM_UP, OptimizerSection, RunConfig
from efficientids_flax.train.state import is_primary

CLOSE = 1e-6  # relative difference below which two rates count as equal


def make_optimizer(
    config: RunConfig, *, trains: bool = True
) -> tuple[optax.GradientTransformation, Any, Any]:
    """(transformation, learning rate by step, patterns of frozen parameters); see `begun`."""
    section = config.optimizer
    if not isinstance(section, OptimizerSection):
        return section, None, None

    def made(total: int) -> Any:
        warm_up = section.warmup_steps
        return create_learning_rate_schedule(
            section.learning_rate,
            warmup_steps=min(WARM_UP, total // 10) if warm_up is None else warm_up,
            total_steps=total,
            schedule_type=section.schedule_type,
            min_learning_rate_ratio=section.min_learning_rate_ratio,
            **_given(section, "decay_steps", "decay_rate", "boundaries"),
        )

    if section.total_steps is None:
        rate = kept_schedule(made, config.num_steps, config.directory, config.options, tells=trains)
    else:
        rate = made(section.total_steps)
    frozen = section.frozen_params
    if section.strategy is not None:
        frozen = (*frozen, *frozen_parameters(section.strategy))
    clip = None if section.clip_variable_norm else section.clip_norm
    described = getattr(config.model["module"], "config", None)
    known = isinstance(described, BackboneConfig | EfficientIDSConfig)
    optimizer = create_optimizer(
        rate,
        optimizer_type=section.optimizer_type,
        weight_decay=section.weight_decay,
        clip_grad_norm=clip or None,
        clip_variable_norm=section.clip_variable_norm,
        frozen_params=list(frozen) or None,
        ema_decay=section.ema_decay,
        model=described if known else None,
        **_given(section, "beta1", "beta2", "momentum"),
        **section.options,
    )
    return optimizer, rate, frozen or None


def _given(section: OptimizerSection, *names: str) -> dict[str, Any]:
    """The fields that are not None."""
    found = {name: getattr(section, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def kept_schedule(
    make: Callable[[int], Any],
    num_steps: int,
    directory: str | None,
    options: TrainingOptions,
    *,
    tells: bool = True,
) -> Any:
    """The schedule of a run; a resumed run keeps the number of steps that it was started with.

    Stretching a cosine to more steps would raise the rate again in the middle of the run. To get
    that, `allow_changes` must name 'schedule'. A message tells the user if it matters.

    Args:
        make: number of steps -> schedule.
        num_steps: total number of steps asked for now.
        directory: directory of the run, whose checkpoints know the original number.
        options: options of the run.
        tells: whether to print the message; an evaluation takes no further step.
    """
    run, step = newest_run(directory, options)
    begun = run.get("schedule_steps")
    if begun is None or begun == num_steps or not options.restore:
        return make(num_steps)
    if "schedule" in options.allow_changes:
        return make(num_steps)
    kept = make(begun)
    if tells and step < num_steps and is_primary():
        asked = make(num_steps)
        now, last = float(kept(step)), float(kept(num_steps - 1))
        then = float(asked(step))
        if abs(now - then) > CLOSE * max(now, then):
            tell(
                options.progress,
                f"schedule: the learning_rate stays on the schedule of {begun} steps that this run"
                f" was begun with: {now:.3g} after step {step}, {last:.3g} at the end;"
                f" --allow-change schedule stretches it to {num_steps} steps ({then:.3g} after"
                f" step {step})",
            )
    return kept


def newest_run(directory: str | None, options: TrainingOptions) -> tuple[dict[str, Any], int]:
    """(What was saved with it, step) of the newest readable checkpoint; ({}, 0) without one."""
    with opened(directory, options, read_only=True) as checkpoints:
        for step in reversed(checkpoints.steps() if checkpoints is not None else []):
            assert checkpoints is not None
            try:
                return checkpoints.run_of(step), step
            except ValueError:  # damaged; the trainer will report it
                continue
    return {}, 0
