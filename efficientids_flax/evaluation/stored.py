"""Evaluates an exported or converted model on a directory of data."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from efficientids_flax.data import DataDirectory, Reading, read_data
from efficientids_flax.data.prepared import check_catalogue
from efficientids_flax.data.rows import HeldOut, as_rows
from efficientids_flax.evaluation.options import EvaluationOptions
from efficientids_flax.evaluation.popularity import training_counts
from efficientids_flax.evaluation.questions import of_rows, of_sequences
from efficientids_flax.evaluation.whole import Evaluation, evaluate, evaluate_batches
from efficientids_flax.inference import Ranker, open_recommender, trained_history
from efficientids_flax.stored import read_item_names, read_prompted

ROWS = 256  # rows of a batch


class Stored(NamedTuple):
    """An evaluation with its description.

    Attributes:
        found: the evaluation.
        about: description for the report: model, data and split.
    """

    found: Evaluation
    about: dict[str, Any]


def evaluate_stored(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    split: str = "test",
    options: EvaluationOptions | None = None,
    *,
    clustering: str | os.PathLike[str] | None = None,
) -> Stored:
    """Evaluate a model on held-out items of a directory of data, with the inputs of `recommend`.

    Args:
        model: directory of a converted or exported recommender.
        data: directory, see `data.read_data`. For users' sequences, whole histories are used; for
            rows, what the rows hold. Rows with words are used unchanged.
        split: 'eval' or 'test'.
        options: None: the defaults.
        clustering: the clustering's file, if it is not beside the model.

    Raises:
        FileNotFoundError: a directory does not exist.
        ValueError: another kind of model, data of another catalogue, or no such split.
    """
    options = options or EvaluationOptions()
    network, params = open_recommender(model, clustering)
    config = network.config
    prompted = read_prompted(model, config)
    words = None if prompted is None else prompted.words
    length = trained_history(config, words)
    directory = read_data(data, Reading(length=length))
    if (count := _num_items(directory)) is not None:
        names, items = read_item_names(model), directory.items
        ours = directory.catalogue or (None if items is None else items.digest())
        theirs = None if names is None else names.digest()
        check_catalogue(str(model), theirs, config.num_items, str(data), ours, count)
    if split not in directory.splits:
        raise ValueError(
            f"{data}: has no split '{split}' to evaluate on; it has {', '.join(directory.splits)}"
        )
    rows = as_rows(directory.splits[split])
    counts = training_counts(directory, config.num_items)
    ranker = Ranker(network, params, words)
    asked = None
    if isinstance(rows, HeldOut):
        asked = of_sequences(rows, options.together)
    elif "input_item_weights" not in rows.take(rows.first):  # items alone
        asked = of_rows(rows.arrays(), options.together)
    if asked is not None:
        # Every held-out event is predicted, even those that would not fit a row.
        notes = list(rows.people_notes if isinstance(rows, HeldOut) else rows.notes)
        longest = max(map(len, asked.histories), default=0)
        if length is not None and longest > length:
            notes.append(f"of histories the last {length} items are used, as the model was trained")
        found = evaluate(
            ranker, asked.histories, asked.held_out, options, counts=counts,
            max_history=length or max(longest, 1), users=asked.users.tolist(), notes=notes,
        )  # fmt: skip
    else:
        batches = (
            rows.take(np.arange(start, min(start + ROWS, rows.num_rows)))
            for start in range(0, rows.num_rows, ROWS)
        )
        found = evaluate_batches(ranker, batches, options, counts=counts, notes=rows.notes)
    about = {"model": _name(model), "data": _name(data), "split": split}
    return Stored(found, about)


def _num_items(data: DataDirectory) -> int | None:
    """I of a directory; None: unknown."""
    if data.num_items is None and data.items is not None:
        return len(data.items.ids)
    if data.num_items is None and data.clustering is not None:
        return data.clustering.num_items
    return data.num_items


def _name(path: str | os.PathLike[str]) -> str:
    """The last part of a path, so that a report reveals nothing about the machine."""
    return Path(path).resolve().name
