"""Evaluates a checkpoint of a run with all metrics, on the run's own data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.data import Batches
from efficientids_flax.evaluation import (
    Evaluation,
    EvaluationOptions,
    evaluate_batches,
    training_counts,
)
from efficientids_flax.inference import Ranker
from efficientids_flax.train.evaluation_data import EvaluationData
from efficientids_flax.train.run.calls import as_trained, begun, evaluated_step
from efficientids_flax.train.run.config import override, run_config
from efficientids_flax.train.run.file_config import built


class Reported(NamedTuple):
    """An evaluation and what was evaluated.

    Attributes:
        found: the evaluation.
        about: run, step, data and split, for the report.
        step: step of the checkpoint.
    """

    found: Evaluation
    about: dict[str, Any]
    step: int


def evaluate_run(
    config: Mapping[str, Any],
    split: str = "eval",
    step: int | None = None,
    options: EvaluationOptions | None = None,
) -> Reported:
    """Evaluate a checkpoint of a run on its own data: all metrics, intervals and segments.

    Args:
        config: sections, see `file_config`, or the configuration of a run in Python.
        split: 'eval' or 'test'.
        step: step of the checkpoint; None: the one that `export` writes.
        options: options of the evaluation; None: the defaults.

    Raises:
        ValueError: the configuration is wrong, has no data for this split, or its model is not a
            recommender; or there are several processes.
        FileNotFoundError: there is no checkpoint.
    """
    options = options or EvaluationOptions()
    if jax.process_count() > 1:
        raise ValueError("report: one process makes it; start it without the others")
    place = (config.get("data") or {}).get("dir")
    if options.exclude_seen and place is not None:
        # Then the rows of the evaluation contain the items that the user has seen before.
        config = override(config, {"training.exclude_seen": True})
    checked = as_trained(run_config(built(config)))
    module = checked.model["module"]
    if not isinstance(module, ItemModel):
        raise ValueError(f"model: {type(module).__name__} recommends no items; there is no report")
    batches = checked.data.get(f"{split}_iter_fn")
    if batches is None:
        raise ValueError(f"data.{split}_iter_fn: missing; there is nothing to evaluate on")
    trainer, state = begun(checked, trains=False)
    step = evaluated_step(checked, batches, step)
    params = trainer.evaluated_params(trainer.restore(state, step))
    counts = None if place is None else training_counts(place, module.config.num_items)
    found = evaluate_batches(
        Ranker(module, params),  # pyright: ignore[reportArgumentType]
        EvaluationData(batches, name=f"{split} data"),  # all, without `num_eval_batches`
        options,
        counts=counts,
        notes=batches.rows.notes if isinstance(batches, Batches) else (),
    )
    about = {"run": Path(checked.directory or "").resolve().name, "step": step}
    if place is not None:
        about["data"] = Path(place).resolve().name
    return Reported(found, {**about, "split": split}, step)
