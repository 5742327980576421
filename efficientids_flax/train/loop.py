"""The one training loop: steps, and now and then a log, an evaluation, a checkpoint.

Between log points the host only hands batches to the device; nothing waits for a result. What a log
point reports is read after the next step has been handed over, while the device is busy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from efficientids_flax.train.logs import Recorder, Row, Trace
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.preemption import Stopped, StopRequest
from efficientids_flax.train.state import (
    DataExhausted,
    Monitor,
    PeekedCursor,
    TrainState,
    is_primary,
    without_frozen,
)
from efficientids_flax.train.step import (
    FINITE,
    LONGEST,
    CompiledStep,
    NonFiniteError,
    Totals,
    Window,
    clock,
    tokens_of,
)


@dataclass
class Run:
    """What the loop works with.

    Attributes:
        step: see `CompiledStep`.
        place: puts a batch on the devices.
        cursor: the training data.
        recorder: takes the numbers.
        options: how often what is done.
        monitor: of the evaluations.
        stop: whether to stop.
        explain: (state, batch) -> what went bad first.
        evaluate: state -> metrics; None: no evaluations.
        save: (state, metrics of this state or None); None: no checkpoints.
        check, settle: raise if what was saved could not be written; the latter waits for it.
        peak: floating-point operations of all devices a second.
        trace: of the profiler.
        reached: the last state, of a run that was told to stop as well.
    """

    step: CompiledStep
    place: Callable[[Any], Any]
    cursor: PeekedCursor
    recorder: Recorder
    options: TrainingOptions
    monitor: Monitor
    stop: StopRequest
    explain: Callable[[TrainState, Any], str]
    evaluate: Callable[[TrainState], dict[str, float]] | None = None
    save: Callable[[TrainState, Mapping[str, float] | None], None] | None = None
    check: Callable[[], None] = lambda: None
    settle: Callable[[], None] = lambda: None
    peak: float | None = None
    trace: Trace | None = None
    reached: TrainState | None = None


def run_loop(run: Run, state: TrainState, num_steps: int) -> TrainState:
    """Train until `num_steps` steps are taken in all, or the run ends early.

    Args:
        run: see `Run`.
        state: to begin with; its trained part is donated.
        num_steps: that the state has at the end.

    Returns:
        The last state.

    Raises:
        NonFiniteError: a step was not finite, and `on_nonfinite` is 'stop'.
        Preempted, KeyboardInterrupt: the process was told to stop; everything is saved.
        UnwrittenCheckpoint: a checkpoint could not be written.
    """
    return _Loop(run, state, num_steps).go()


def stopped_before(
    options: TrainingOptions, directory: Path | None, step: int, num_steps: int, monitor: Monitor
) -> list[Row]:
    """The history of a run that an earlier call has stopped early, which is said."""
    recorder = Recorder(options, directory, step, num_steps, is_primary())
    recorder.note(
        f"stopped early after step {step} already: {monitor.ended}; a larger"
        " early_stopping_patience, or none, goes on"
    )
    recorder.close()
    return recorder.history.rows


class _Loop:
    def __init__(self, run: Run, state: TrainState, num_steps: int) -> None:
        self.run, self.last = run, num_steps
        self.step = self.first = int(state.step)
        self.state, self.frozen = without_frozen(state)
        self.metrics = run.step.none()
        self.window = Window()
        self.due: Window | None = None  # ended, not reported
        self.totals = Totals(run.step.names)
        self.keeps_batches = run.options.on_nonfinite == "stop"
        self.tokens = 0
        self.saved = self.evaluated = -1
        self.measured: Mapping[str, float] | None = None  # at `evaluated`

    def go(self) -> TrainState:
        """See `run_loop`."""
        run = self.run
        stop, cursor, place, take = run.stop, run.cursor, run.place, run.step
        event = self.step + 1
        try:
            while self.step < self.last:
                start = clock()
                try:
                    given = next(cursor)
                except DataExhausted as end:
                    run.recorder.note(f"{end}; {self.last - self.step} steps were still to do")
                    break
                batch = place(given)
                window = self.window
                window.waited += clock() - start
                self.state, self.metrics = take(self.state, self.frozen, batch, self.metrics)
                self.step += 1
                window.steps += 1
                if self.keeps_batches:
                    window.batches.append(batch)
                if self.due is not None:
                    self._report_due()
                if self.step >= event:
                    if self.step == self.first + 1:
                        self._begin(given)
                    run.check()
                    if self._at_event():
                        break
                    event = self._next_event()
                if stop(self.step):
                    raise Stopped
            self._finish()
        except Stopped:
            saved = self._save_last()
            raise stop.ending(self.step, saved) from None
        except KeyboardInterrupt:  # of the data, or Ctrl-C again
            if jax.process_count() == 1:
                self._save_last()
            raise
        finally:
            if run.trace is not None:
                run.trace.end(self.state.step)
        run.reached = self._whole()
        return run.reached

    def _begin(self, batch: Any) -> None:
        """After the first step: what it took to get going is not part of the speed."""
        self.tokens = tokens_of(batch) * jax.process_count()
        jax.block_until_ready(self.metrics)
        self.window.waited = 0.0
        self.totals.begin()

    def _next_event(self) -> int:
        """The next step after which there is something to do."""
        run, step = self.run, self.step
        found = [self.last, step + LONGEST, _following(step, run.options.log_every)]
        if run.evaluate is not None and run.options.evaluates_every:
            found.append(_following(step, run.options.evaluates_every))
        if run.save is not None and run.options.save_every:
            found.append(_following(step, run.options.save_every))
        if run.trace is not None:
            found += [edge for edge in run.trace.edges if edge > step]
        return min(found)

    def _at_event(self) -> bool:
        """Log, evaluate, save; whether the run ends here."""
        run, options, step = self.run, self.run.options, self.step
        if run.trace is not None:
            run.trace.at(step, self.state.step)
        evaluates = run.evaluate is not None and _falls(step, options.evaluates_every)
        saves = run.save is not None and _falls(step, options.save_every)
        if not (evaluates or saves or _falls(step, options.log_every) or self._is_long()):
            return False
        self._close_window()
        if not (evaluates or saves):
            return False
        self._report_due()
        metrics, best = self._evaluate() if evaluates else (None, False)
        if saves or (best and options.keep_best):
            self._save(metrics)
        return evaluates and run.monitor.exhausted

    def _is_long(self) -> bool:
        return self.window.steps >= LONGEST

    def _close_window(self) -> None:
        self.window.last, self.window.metrics = self.step, self.metrics
        self.window, self.due = Window(), self.window

    def _evaluate(self) -> tuple[dict[str, float], bool]:
        """(metrics, whether they are the best so far)."""
        assert self.run.evaluate is not None
        start = clock()
        try:
            with self.run.stop.at_once():
                metrics = self.run.evaluate(self._whole())
        except Exception:
            if jax.process_count() == 1:  # of several the others may be amid a sum with this one
                self._save(None)
            raise
        self.evaluated, self.measured = self.step, metrics
        self.run.recorder.evaluation(self.step, metrics)
        monitor, options = self.run.monitor, self.run.options
        best = False
        if options.monitors:
            best = monitor.update(metrics)
            if monitor.exhausted:
                self.run.recorder.note(f"stopped early after step {self.step}: {monitor.ended}")
        self.window.aside += clock() - start
        return metrics, best

    def _save(self, metrics: Mapping[str, float] | None) -> None:
        if self.run.save is None or self.saved == self.step:
            return
        start = clock()
        self.run.recorder.write()
        if metrics is None and self.evaluated == self.step:
            metrics = self.measured
        self.run.save(self._whole(), metrics)
        self.saved = self.step
        taken = clock() - start
        self.window.aside += taken
        self.window.saving += taken

    def _save_last(self) -> bool:
        """Leave what was reached; whether it is on disk. A step that is not finite is not saved."""
        run, before = self.run, self.step
        run.stop.saving = True
        if self.state.step.is_deleted():  # a step was broken off that had begun
            return False
        self.step = int(self.state.step)  # Ctrl-C may have come between the step and its count
        self.window.steps += self.step - before
        run.cursor.used(self.step - self.first)
        run.reached = self._whole()
        if self.step == self.first:
            return run.save is not None and self.step > 0
        self._report_all()
        self._save(None)
        run.settle()
        return run.save is not None

    def _report_due(self) -> None:
        """Read the results of the window that ended, record them, log where a log point is.

        Raises:
            NonFiniteError: one of them was not finite, and that ends the run.
        """
        window, self.due = self.due, None
        assert window is not None
        run, names = self.run, self.run.step.names
        rows = np.asarray(window.metrics)[window.steps - 1 :: -1].tolist()
        first = window.last - len(rows) + 1
        if run.options.on_nonfinite == "stop":
            finite = [row[names.index(FINITE)] for row in rows]
            if 0.0 in finite:
                self._raise(first, finite.index(0.0), rows, window)
        run.recorder.steps(first, names, rows)
        self.totals.add(window, rows)
        if _falls(window.last, run.options.log_every) or window.last == self.last:
            values = self.totals.take(self.tokens, run.step.flops, run.peak)
            run.recorder.log(window.last, values)

    def _report_all(self) -> None:
        if self.due is not None:
            self._report_due()
        if self.window.steps:
            self._close_window()
            self._report_due()

    def _raise(self, first: int, index: int, rows: list[list[float]], window: Window) -> None:
        """Say what went bad; the state is the one before that step."""
        names = self.run.step.names
        loss, norm = (rows[index][names.index(name)] for name in ("loss", "grad_norm"))
        why = self.run.explain(self._whole(), window.batches[index])
        raise NonFiniteError(
            f"step {first + index}: loss {loss:.6g}, gradient norm {norm:.6g}: {why}; the"
            " checkpoints before it stay (on_nonfinite='skip' leaves such steps out)"
        )

    def _finish(self) -> None:
        """Report, evaluate and save what is left."""
        self._report_all()
        if self.step == self.first:
            return
        wanted = self.run.evaluate is not None and self.run.options.evaluates_every
        metrics = self._evaluate()[0] if wanted and self.evaluated != self.step else None
        self._save(metrics)

    def _whole(self) -> TrainState:
        return self.state.replace(frozen=self.frozen)  # pyright: ignore[reportAttributeAccessIssue]


def _following(step: int, every: int) -> int:
    """The first multiple after a step."""
    return (step // every + 1) * every


def _falls(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
