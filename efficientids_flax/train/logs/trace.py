"""A trace of the profiler over some steps, for TensorBoard or Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

LEFT_OUT = 2  # steps before it: the first ones are not like the others


class Trace:
    """Begins and ends a trace at its steps.

    Attributes:
        edges: steps after which it begins and ends.
    """

    def __init__(
        self, directory: Path, first: int, last: int, steps: int, note: Callable[[str], None]
    ) -> None:
        """Nothing is traced yet.

        Args:
            directory: where it goes.
            first, last: step before the first one, and the last.
            steps: how many are traced.
            note: told when it is written.
        """
        begin = max(min(first + LEFT_OUT, last - 1), first + 1)
        self.edges = (begin, min(begin + steps, last))
        self._directory, self._note, self._on = directory, note, False

    def at(self, step: int, awaited: Any) -> None:
        """After a step; `awaited` is one of its results."""
        if step == self.edges[0] and self.edges[0] < self.edges[1]:
            jax.block_until_ready(awaited)
            jax.profiler.start_trace(str(self._directory))
            self._on = True
        elif step == self.edges[1]:
            self.end(awaited)

    def end(self, awaited: Any) -> None:
        """End a trace that has begun."""
        if self._on:
            jax.block_until_ready(awaited)
            jax.profiler.stop_trace()
            self._on = False
            self._note(f"trace of the profiler: {self._directory}")
