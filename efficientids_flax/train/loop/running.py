"""The parts that the loop works with, put together by the Trainer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.train.history import Rows
from efficientids_flax.train.logs import Recorder, Trace
from efficientids_flax.train.loop.preemption import StopRequest
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import Monitor, PeekedCursor, TrainState, is_primary
from efficientids_flax.train.step import LONGEST, CompiledStep


@dataclass
class Run:
    """The parts that the loop works with.

    Attributes:
        step: see `CompiledStep`.
        place: puts a batch on the devices.
        cursor: the training data.
        recorder: takes metrics.
        options: how often to log, evaluate and save.
        monitor: follows the evaluations.
        stop: whether to stop.
        explain: (state, batch) -> what became non-finite first.
        look: (field -> number of wrong values, batch) -> message about them.
        evaluate: state -> metrics; None: no evaluations.
        save: (state, metrics of this state or None); None: no checkpoints.
        check, settle: raise if a checkpoint could not be written; the latter waits for it.
        peak: peak FLOP/s of all devices.
        trace: the profiler's trace.
        reached: the last state, also of a run that was stopped.
    """

    step: CompiledStep
    place: Callable[[Any], Any]
    cursor: PeekedCursor
    recorder: Recorder
    options: TrainingOptions
    monitor: Monitor
    stop: StopRequest
    explain: Callable[[TrainState, Any], str]
    look: Callable[[Mapping[str, int], Any], str]
    evaluate: Callable[[TrainState], dict[str, float]] | None = None
    save: Callable[[TrainState, Mapping[str, float] | None], None] | None = None
    check: Callable[[], None] = lambda: None
    settle: Callable[[], None] = lambda: None
    peak: float | None = None
    trace: Trace | None = None
    reached: TrainState | None = None

    def next_event(self, step: int, waiting: int, last: int) -> int:
        """The next step after which there is something to do.

        Args:
            step: the step just taken.
            waiting: number of steps whose results have not been read.
            last: last step of the run.
        """
        options, found = self.options, [last, step + LONGEST - waiting]
        found.append(_following(step, options.log_every))
        if self.evaluate is not None and options.evaluates_every:
            found.append(_following(step, options.evaluates_every))
        if self.save is not None and options.save_every:
            found.append(_following(step, options.save_every))
        if self.trace is not None:
            found += [edge for edge in self.trace.edges if edge > step]
        return min(found)

    def logs(self, step: int) -> bool:
        """Whether there is a log after this step."""
        return _falls(step, self.options.log_every)

    def evaluates(self, step: int) -> bool:
        """Whether there is an evaluation."""
        return self.evaluate is not None and _falls(step, self.options.evaluates_every)

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint."""
        return self.save is not None and _falls(step, self.options.save_every)


def check_steps(num_steps: Any) -> None:
    """Raises ValueError if it is no number of steps."""
    whole = isinstance(num_steps, int | np.integer) and not isinstance(num_steps, bool)
    if not whole or num_steps < 0:
        raise ValueError(
            f"num_steps: expected a whole number of steps in all, at least 0, found {num_steps!r}"
        )


def stopped_before(
    options: TrainingOptions, directory: Path | None, step: int, num_steps: int, monitor: Monitor
) -> Rows:
    """The history of a run that an earlier call has stopped early, which is said."""
    recorder = Recorder(options, directory, step, num_steps, is_primary())
    recorder.note(
        f"stopped early after step {step} already: {monitor.ended}; a larger"
        " early_stopping_patience, or none, goes on"
    )
    recorder.close()
    return recorder.history.rows


def _following(step: int, every: int) -> int:
    """The first multiple after a step."""
    return (step // every + 1) * every


def _falls(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
