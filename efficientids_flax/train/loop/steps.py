"""The training loop: steps, with logs, evaluations and checkpoints in between.

The host starts steps without waiting for their results. Every few steps, and at log points, it
reads the metrics of earlier steps, while the device is busy with the next one. Batches are kept
until then, so that a bad one can be diagnosed.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from efficientids_flax.train.loop.ends import REFUSED, end_of, first_end, not_finite, spoilt
from efficientids_flax.train.loop.preemption import Stopped
from efficientids_flax.train.loop.running import Run
from efficientids_flax.train.loop.supply import Supply
from efficientids_flax.train.state import (
    DataExhausted,
    ProcessFault,
    TrainState,
    UnwrittenCheckpoint,
    without_frozen,
)
from efficientids_flax.train.step import (
    LONGEST,
    WEIGHT,
    NonFiniteError,
    Totals,
    Window,
    clock,
    tokens_of,
)


def run_loop(run: Run, state: TrainState, num_steps: int) -> TrainState:
    """Train until `num_steps` steps are taken in all, or the run ends early.

    Args:
        run: see `Run`.
        state: the first state; its trained part is donated.
        num_steps: total number of steps at the end.

    Returns:
        The last state.

    Raises:
        NonFiniteError: a step was not finite, and `on_nonfinite` is 'stop'; those before it are
            saved.
        WrongValues: a batch on the devices had values out of range; steps before it are saved.
        ProcessFault: one of several processes could not read a batch; raised in all, likewise.
        Preempted, KeyboardInterrupt: the process was told to stop; everything is saved.
        UnwrittenCheckpoint: a checkpoint could not be written.
    """
    return _Loop(run, state, num_steps).go()


class _Loop:
    def __init__(self, run: Run, state: TrainState, num_steps: int) -> None:
        self.run, self.last = run, num_steps
        self.step = self.first = int(state.step)
        self.state, self.frozen = without_frozen(state)
        self.state = run.step.entered(self.state)
        self.metrics = run.step.none()
        self.window = Window()
        self.due: Window | None = None  # the window that ended and is not reported yet
        self.totals = Totals(run.step.names)
        self.saved = self.evaluated = -1
        self.several = jax.process_count() > 1
        self.supply = Supply(run)
        self.told = False  # whether the warning about a run without labels was given
        self.measured: Mapping[str, float] | None = None  # at `evaluated`

    def go(self) -> TrainState:
        """See `run_loop`."""
        run, stop = self.run, self.run.stop
        try:
            try:
                self._steps()
                self._report_all()
            except DataExhausted as end:
                run.recorder.note(f"{end}; {self.last - self.step} steps were still to do")
            self._finish()
        except Stopped:
            try:
                saved = self._save_last()
            except REFUSED as error:
                self._save_after(error)
                raise
            raise stop.ending(self.step, saved) from None
        except KeyboardInterrupt:  # raised by the data, or Ctrl-C again
            if not self.several:
                self._save_last()
            raise
        except UnwrittenCheckpoint:
            run.reached = self._whole()
            raise
        except REFUSED as error:  # raised in all processes
            self._save_after(error)
            raise
        except Exception as error:  # for example from the data: the steps before it are complete
            if not self.several:  # otherwise the others may be in a step with this process
                self._save_after(error)
            raise
        finally:
            if run.trace is not None:
                run.trace.end(self.state.step)
        run.reached = self._whole()
        return run.reached

    def _steps(self) -> None:
        """Steps until the last, or until the run ends early.

        Raises:
            DataExhausted: there are no more batches.
        """
        run, take = self.run, self.run.step
        event = self.step + 1
        while self.step < self.last:
            start = clock()
            batch = self.supply.next(self.state, self.frozen, self.metrics)
            window = self.window
            window.waited += clock() - start
            self.state, self.metrics = take(
                self.state, self.frozen, batch, self.metrics, fault=self.supply.fault is not None
            )
            self.step += 1
            window.steps += 1
            window.flops += take.flops
            window.batches.append(batch)
            if self.due is not None:
                self._report_due()
            if self.step >= event:
                if self.step == self.first + 1:
                    self._begin(batch)
                if self._at_event():
                    return
                event = run.next_event(self.step, self.window.steps, self.last)
            if run.stop():
                raise Stopped

    def _begin(self, batch: Any) -> None:
        """After the first step, start timing: compilation does not count in the speed."""
        jax.block_until_ready(self.metrics)
        self.window.waited = 0.0
        self.totals.begin(tokens_of(batch), self.window.flops)

    def _at_event(self) -> bool:
        """Log, evaluate and save as due; returns whether the run ends here."""
        run, step = self.run, self.step
        if run.trace is not None:
            run.trace.at(step, self.state.step)
        evaluates, saves = run.evaluates(step), run.saves(step)
        told = evaluates or saves or run.logs(step)
        if not (told or self.window.steps >= LONGEST):
            return False
        self._close_window()
        if told:
            run.check()
        if not (evaluates or saves):
            return False
        self._report_due()
        metrics, best = self._evaluate() if evaluates else (None, False)
        if saves or (best and run.options.keep_best):
            self._save(metrics)
        return evaluates and run.monitor.exhausted

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
        except Exception as error:
            # With several processes, the others may be in a collective with this one.
            if not self.several or isinstance(error, ProcessFault):
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
        if self.saved == self.step:
            return
        if path := not_finite(self.state.trained):
            raise spoilt(self.step, path)
        if self.run.save is None:
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
        """Save the state reached; returns whether it is on disk."""
        run, before = self.run, self.step
        run.stop.saving = True
        if self.state.step.is_deleted():  # interrupted in a step, which had donated the state
            return False
        # Ctrl-C may have come between the step and its count; the report finds bad steps.
        self.step = max(int(self.state.step), before)
        self.window.steps += self.step - before
        run.cursor.used(self.step - self.first)
        run.reached = self._whole()
        if self.step == self.first:
            return run.save is not None and self.step > 0
        self._report_all()
        self._save(None)
        run.settle()
        return run.save is not None

    def _save_after(self, error: Exception) -> None:
        """Save the state reached before an error, and add a note to the error."""
        if isinstance(error, NonFiniteError) and not_finite(self.state.trained):
            error.add_note(f"step {self.step} is not saved: not all of its parameters are finite")
            return
        try:
            saved = self._save_last()
        except Exception as other:
            error.add_note(f"what was reached is not saved: {other}")
            return
        if saved and self.step > self.first:
            error.add_note(f"step {self.step}, before it, is saved; the same command goes on")

    def _report_due(self) -> None:
        """Read the metrics of the window that ended, record them, and log at log points.

        Raises:
            NonFiniteError: a step was not finite, and that ends the run.
            WrongValues: a batch had values out of range.
        """
        window, self.due = self.due, None
        assert window is not None
        run, names = self.run, self.run.step.names
        found = np.asarray(window.metrics)[window.steps - 1 :: -1]
        first = window.last - len(found) + 1
        ends = first_end(found)
        if ends is not None:  # the steps before it are valid
            self.step, self.window = first + ends - 1, Window()
            run.recorder.steps(first, names, found[:ends, : len(names)].tolist())
            raise end_of(
                run, first + ends, found[ends], window.batches[ends], fault=self.supply.ended,
                explain=lambda batch: run.explain(self._whole(), batch),
            )  # fmt: skip
        rows = found[:, : len(names)].tolist()
        run.recorder.steps(first, names, rows)
        # On a mesh a batch has the rows of all processes.
        self.totals.add(window, rows, sum(map(tokens_of, window.batches)))
        if run.logs(window.last) or window.last == self.last:
            values = self.totals.take(run.peak)
            run.recorder.log(window.last, values)
            if values.get(WEIGHT) == 0 and not self.told:
                self.told = True
                run.recorder.note(
                    f"up to step {window.last}: no label of these batches has a weight, so that"
                    " their loss means nothing"
                )

    def _report_all(self) -> None:
        if self.due is not None:
            self._report_due()
        if self.window.steps:
            self._close_window()
            self._report_due()

    def _finish(self) -> None:
        """Final report, evaluation and checkpoint."""
        self._report_all()
        if self.step == self.first:
            return
        wanted = self.run.evaluate is not None and self.run.options.evaluates_every
        metrics = self._evaluate()[0] if wanted and self.evaluated != self.step else None
        self._save(metrics)

    def _whole(self) -> TrainState:
        state = self.run.step.left(self.state)
        return state.replace(frozen=self.frozen)  # pyright: ignore[reportAttributeAccessIssue]
