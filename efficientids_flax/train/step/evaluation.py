"""Evaluation of a model over batches: sums stay on the device and are read once, at the end."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.core.batch import check_batch, wrong_counts
from efficientids_flax.core.metrics import TokenSums
from efficientids_flax.train.evaluation_data import EvaluationData, Source
from efficientids_flax.train.state import BatchPlacer
from efficientids_flax.train.state.shared_batches import shared_batches
from efficientids_flax.train.step.gathering import Gatherer, Waiting
from efficientids_flax.train.step.mean import added
from efficientids_flax.train.step.objectives import Objective
from efficientids_flax.train.step.returned import WEIGHT, negative

# fmt: off
NAMES = {
    # of the sums                           of the evaluation
    "total_loss":                           "loss",
    "fraction_of_correct_next_step_preds":  "accuracy",
}
# fmt: on
COUNT = "num_predictions"  # without labels this is 0, not NaN


class Evaluator:
    """Evaluates the parameters of one objective; compiled once for each shape."""

    def __init__(self, objective: Objective, place: BatchPlacer) -> None:
        """Prepare the functions; nothing is compiled yet.

        Args:
            objective: defines the sums.
            place: puts a batch on the devices.
        """
        self._place = place

        def counts(batch: Any) -> dict[str, jax.Array]:
            if place.config is None:
                return {}
            check_batch(place.config, batch, labels=True)  # fields only: in jit there are no values
            return wrong_counts(place.config, batch)

        @jax.jit
        def sums(params: Any, model_state: Any, batch: Any) -> Any:
            wrong, found = counts(batch), objective.sums(params, batch, model_state)
            if place.config is None:  # weights of the caller's loss function
                wrong = {WEIGHT: sum(negative(value.weight) for value in found.values())}
            return found, wrong

        self._sums = sums
        self._join = jax.jit(lambda total, found: tuple(map(added, total, found)))
        self._gatherer = None
        # Gathering needs a batch's weights on the host, so only with a single process.
        if objective.gathering is not None and jax.process_count() == 1:
            self._gatherer = Gatherer(objective.gathering, counts)
        self._compute = jax.jit(
            lambda total: (
                [_means(value) for value in total[0].values()],
                [value.weight for value in total[0].values()],
                total[1],
            )
        )

    def names(self, variables: dict[str, Any], batch: Any, prefix: str = "eval_") -> set[str]:
        """The names of the metrics that an evaluation reports, by abstract evaluation.

        Args:
            variables: parameters and other collections.
            batch: a dict of arrays.
            prefix: prefix of the names.
        """
        rest = dict(variables)
        shapes, _, _ = jax.eval_shape(
            lambda params: self._compute(self._sums(params, rest, batch)), rest.pop("params")
        )
        return {f"{prefix}{name}" for values in shapes for name in values}

    def __call__(
        self,
        variables: dict[str, Any],
        batches: Source | EvaluationData,
        num_batches: int | None = None,
        prefix: str = "eval_",
        between: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Metrics over batches.

        Args:
            variables: parameters and other collections.
            batches: dicts of arrays, or a function that returns them; read from the start, see
                `EvaluationData`.
            num_batches: number of batches; None: all. Ignored if `batches` is `EvaluationData`.
            prefix: prefix of the names.
            between: called after each batch.

        Returns:
            Name -> mean: `eval_loss`, `eval_accuracy` (for the package's models: share of labels
            that are the best class), ranking metrics, or what the loss function returned. NaN, with
            a warning, if nothing has a weight.

        Raises:
            ValueError: there is no batch, or they are endless; values of a batch on the devices are
                out of range.
        """
        rest = dict(variables)
        params = rest.pop("params")
        data = batches
        if not isinstance(data, EvaluationData):
            fills = self._place.config is not None
            data = EvaluationData(batches, num_batches, fills=fills)
        total = None
        for found in self._found(params, rest, data, between):
            total = found if total is None else self._join(total, found)
        if total is None:
            raise ValueError(
                f"{data.name}: no batch has a row; was an iterator already read to its end?"
            )
        metrics: dict[str, float] = {}
        computed, weights, counts = jax.device_get(self._compute(total))
        if wrong := [f"{count} in {name}" for name, count in counts.items() if count]:
            raise ValueError(f"{data.name}: values of the batches out of range: {', '.join(wrong)}")
        for values, weight in zip(computed, weights, strict=True):
            for name, value in values.items():
                measured = weight > 0 or name == COUNT
                metrics[f"{prefix}{name}"] = float(value) if measured else math.nan
        if unmeasured := sorted(name for name, value in metrics.items() if math.isnan(value)):
            why = (
                "no label has a weight"
                if any(weight == 0 for weight in weights)
                else "a loss, a score or a weight is NaN"
            )
            warnings.warn(
                f"{data.name}: {why}; {', '.join(unmeasured)} are NaN, and never the best",
                stacklevel=2,
            )
        return metrics

    def _found(
        self, params: Any, rest: Any, data: EvaluationData, between: Callable[[], None]
    ) -> Iterator[Any]:
        """(sums, wrong counts) of all batches; with a large catalogue, of several at once."""
        waiting = None if self._gatherer is None else Waiting(self._gatherer, params)
        for batch in shared_batches(data, self._place):
            times = None if waiting is None else waiting.times(batch)
            if waiting is None or times is None:
                yield self._sums(params, rest, batch)
            else:
                yield from waiting.add(batch, times)
            between()
        if waiting is not None:
            yield from waiting.rest()


def _means(sums: Any) -> dict[str, jax.Array]:
    """The means, under the names of an evaluation.

    PAXml divides by at least 1, which takes labels that weigh less than that in all for missed ones
    in part. They are scaled up to 1 before.
    """
    weight = sums.weight
    scale = jnp.where((weight > 0) & (weight < 1), 1 / weight, 1.0)
    found: dict[str, jax.Array] = jax.tree.map(lambda x: x * scale, sums).compute()
    if not isinstance(sums, TokenSums):
        return found
    found = {NAMES.get(name, name): value for name, value in found.items()}
    return found | {COUNT: weight}
