"""The best state of a run without a directory, kept in memory."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.monitor import Monitor


class KeptState:
    """A copy of the state with the best evaluation.

    Attributes:
        state: the copy; None before the first finite evaluation.
    """

    def __init__(self, options: TrainingOptions) -> None:
        """Choose by `keep_best` of the options."""
        self.state: TrainState | None = None
        self._monitor = Monitor.of(options)

    def look(self, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Copy this state if its evaluation is the best; frozen parameters are not copied."""
        if self._monitor.update(metrics):
            self.state = _copy(state)

    def spared(self, state: TrainState) -> TrainState:
        """The state to train on: a copy if it is the kept one, whose arrays would be donated."""
        return _copy(state) if state is self.state else state


def _copy(state: TrainState) -> TrainState:
    copied = jax.tree.map(jnp.copy, state.replace(frozen={}))  # pyright: ignore[reportAttributeAccessIssue]
    return copied.replace(frozen=state.frozen)
