"""A profiler trace over some steps, for TensorBoard or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

LEFT_OUT = 2  # steps before the trace: the first ones are not typical


class Trace:
    """Starts and stops the profiler at given steps.

    Attributes:
        edges: the steps after which the trace begins and ends.
    """

    def __init__(
        self, directory: Path, first: int, last: int, steps: int, note: Callable[[str], None]
    ) -> None:
        """Choose the steps; tracing starts later, in `at`.

        Args:
            directory: where the trace is written.
            first, last: the step before the first one, and the last one.
            steps: number of steps to trace.
            note: called with a message when the trace is written.
        """
        begin = max(min(first + LEFT_OUT, last - 1), first + 1)
        self.edges = (begin, min(begin + steps, last))
        self._directory, self._note, self._on = directory, note, False

    def at(self, step: int, awaited: Any) -> None:
        """Call after each step; `awaited` is one of its results, to wait for."""
        if step == self.edges[0] and self.edges[0] < self.edges[1]:
            jax.block_until_ready(awaited)
            jax.profiler.start_trace(str(self._directory))
            self._on = True
        elif step == self.edges[1]:
            self.end(awaited)

    def end(self, awaited: Any) -> None:
        """End the trace, if it has begun."""
        if self._on:
            jax.block_until_ready(awaited)
            jax.profiler.stop_trace()
            self._on = False
            self._note(f"trace of the profiler: {self._directory}")
