"""How a trainer evaluates its states, and which of them it keeps as the best."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from jax.sharding import Mesh

from efficientids_flax.train.directory import RunDirectory
from efficientids_flax.train.evaluation_data import EvaluationData, evaluations
from efficientids_flax.train.state import KeptState, Monitor, TrainState
from efficientids_flax.train.step import Evaluator


class Evaluating(RunDirectory):
    """The part of `Trainer` that deals with evaluations.

    Attributes:
        mesh: that the run is spread over; None on one device.
    """

    mesh: Mesh | None
    _evaluator: Evaluator

    def evaluate(
        self,
        state: TrainState,
        dataset: Any,
        num_eval_batches: int | None = None,
        *,
        prefix: str = "eval_",
    ) -> dict[str, float]:
        """Metrics over a dataset, without dropout: see `Evaluator`.

        By the averages of the parameters where `evaluate_average` says so. Of `ShuffledBatches`
        every row counts once, the last ones too.
        """
        variables = {**state.variables, "params": self.evaluated_params(state)}
        with self._on_mesh():
            return self._evaluator(variables, dataset, num_eval_batches, prefix)

    def _evaluations(
        self, state: TrainState, dataset: Any, monitor: Monitor
    ) -> EvaluationData | None:
        """The evaluation data of a run, looked at before its first step.

        Raises:
            TypeError, ValueError: see `evaluations` and `EvaluationData.first`; the evaluation
                lacks a field, or the metric that the run goes by.
        """
        data = evaluations(dataset, self.options)
        if data is not None:
            with self._on_mesh():
                names = self._evaluator.names(state.variables, data.first())
            if self.options.monitors:
                monitor.check(names)
        return data

    def _measured(self, state: TrainState, data: EvaluationData) -> dict[str, float]:
        """An evaluation while training; the best state is kept where there is no directory."""
        found = self.evaluate(state, data)
        if self.options.keep_best and self.directory is None:
            self._kept = self._kept or KeptState(self.options)
            self._kept.look(state, found)
        return found

    def _on_mesh(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)
