"""The batches of the loop; all processes learn at the same step if one of them has none."""

from typing import Any

import jax

from efficientids_flax.train.loop.preemption import Stopped
from efficientids_flax.train.loop.running import Run
from efficientids_flax.train.state import (
    DataExhausted,
    TrainState,
    problems_of_all,
    shared_fault,
)


class Supply:
    """Batches on the devices.

    Several processes wait for each other in each step. A process without a batch passes the last
    one again with a flag that prevents the step, until all processes have seen the flag.

    Attributes:
        fault: why this process has no more batches; None: it has.
    """

    def __init__(self, run: Run) -> None:
        """Reads nothing yet."""
        self._run, self._several = run, jax.process_count() > 1
        self._last: Any = None
        self.fault: Exception | None = None

    def next(self, state: TrainState, frozen: Any, metrics: Any) -> Any:
        """The next batch.

        Args:
            state, frozen, metrics: arguments of the step that will take it.

        Raises:
            DataExhausted: there are no more batches, and there is only one process.
            Stopped: reading failed after the only process was told to stop: the signal may have
                ended processes that read for it.
            Exception: the batch cannot be read or placed, and there is only one process.
        """
        if self.fault is not None:
            return self._last
        try:
            batch = self._run.place(next(self._run.cursor))
            if self._several:
                self._run.step.ready(state, frozen, batch, metrics)
        except Exception as error:
            exhausted = isinstance(error, DataExhausted)
            if self._run.stop.received and not self._several and not exhausted:
                raise Stopped from error
            if self._last is None:
                raise
            self.fault = error
            return self._last
        if self._several:
            self._last = batch
        return batch

    def ended(self, step: int) -> Exception:
        """The error that ends the run in all processes; all must call this.

        Args:
            step: the step at which some process had no batch.

        Returns:
            `DataExhausted` if all processes have read their data to the end, else `ProcessFault`.
        """
        problems = problems_of_all(self.fault)
        if isinstance(self.fault, DataExhausted) and len(set(problems)) == 1:
            return self.fault
        return shared_fault(problems, f"step {step}: ")
