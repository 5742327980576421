"""The learning rate of a run that goes on for longer than it was begun for."""

from collections.abc import Callable
from typing import Any

from efficientids_flax.train.directory import opened
from efficientids_flax.train.logs import tell
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import is_primary

CLOSE = 1e-6  # of the rate: no difference


def kept_schedule(
    make: Callable[[int], Any], num_steps: int, directory: str | None, options: TrainingOptions
) -> Any:
    """The schedule of a run; of as many steps as it was begun with, where it goes on.

    A cosine that was stretched to more steps would raise the rate in mid-air, after it had come
    down. `allow_changes` with 'schedule' asks for that. A line says so where it matters.

    Args:
        make: number of steps -> schedule.
        num_steps: that the run is to have now.
        directory: of the run, whose checkpoints know what it was begun with.
        options: of the run.
    """
    begun, step = _begun(directory, options)
    if begun is None or begun == num_steps or not options.restore:
        return make(num_steps)
    if "schedule" in options.allow_changes:
        return make(num_steps)
    kept = make(begun)
    if step < num_steps and is_primary():
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


def _begun(directory: str | None, options: TrainingOptions) -> tuple[int | None, int]:
    """(steps of the schedule, newest step) of a run's newest checkpoint that can be read."""
    with opened(directory, options, read_only=True) as checkpoints:
        for step in reversed(checkpoints.steps() if checkpoints is not None else []):
            assert checkpoints is not None
            try:
                return checkpoints.run_of(step).get("schedule_steps"), step
            except ValueError:  # damaged; the trainer says so
                continue
    return None, 0
