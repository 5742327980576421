"""The batches of the loop; of several processes all learn, at the same step, that one has none."""

from typing import Any

import jax

from efficientids_flax.train.loop.running import Run
from efficientids_flax.train.state import (
    DataExhausted,
    TrainState,
    problems_of_all,
    shared_fault,
)


class Supply:
    """Batches, placed.

    In each step of several processes all wait for each other. One that has no batch brings the last
    one again, with a sign by which no step is taken, until all of them have seen it.

    Attributes:
        fault: why this process has no batch any more.
    """

    def __init__(self, run: Run) -> None:
        """Of this run; nothing is read yet."""
        self._run, self._several = run, jax.process_count() > 1
        self._last: Any = None
        self.fault: Exception | None = None

    def next(self, state: TrainState, frozen: Any, metrics: Any) -> Any:
        """The next batch.

        Args:
            state, frozen, metrics: of the step that takes it.

        Raises:
            DataExhausted: there is none, and this process is alone.
            Exception: it cannot be read or placed; the same.
        """
        if self.fault is not None:
            return self._last
        try:
            batch = self._run.place(next(self._run.cursor))
            if self._several:
                self._run.step.ready(state, frozen, batch, metrics)
        except Exception as error:
            if self._last is None:
                raise
            self.fault = error
            return self._last
        if self._several:
            self._last = batch
        return batch

    def ended(self, step: int) -> Exception:
        """What ends the run in all processes, which all call this.

        Args:
            step: at which some had no batch.

        Returns:
            `DataExhausted` where all of them have read theirs to its end, else `ProcessFault`.
        """
        problems = problems_of_all(self.fault)
        if isinstance(self.fault, DataExhausted) and len(set(problems)) == 1:
            return self.fault
        return shared_fault(problems, f"step {step}: ")
