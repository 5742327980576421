"""How often each item occurs in training."""

import os
from pathlib import Path

import numpy as np

from efficientids_flax.data import DataDirectory, read_data
from efficientids_flax.data.rows import as_rows
from efficientids_flax.prepared_format import ITEMS

AT_ONCE = 1 << 14  # rows


def training_counts(
    data: DataDirectory | str | os.PathLike[str], num_items: int
) -> np.ndarray | None:
    """int64 [I], how often each item occurs in the training data of a directory.

    For prepared data the events of the training split are counted; for other data the labels of the
    training rows, and the first item of each row.

    Args:
        data: a directory, or its content.
        num_items: I.

    Returns:
        The counts; None if rows may contain words, which cannot be told from items without a model.

    Raises:
        ValueError: there are more items than the model has.
    """
    directory = data if isinstance(data, DataDirectory) else read_data(data)
    path = directory.path if isinstance(data, DataDirectory) else Path(data)
    if path is not None and (path / ITEMS).is_file():
        from efficientids_flax.data.prepared import open_prepared

        counts = np.asarray(open_prepared(path).items["count"], np.int64)
        if len(counts) > num_items:
            raise ValueError(
                f"{path}: has {len(counts)} items, the model {num_items}: it is of other data"
            )
        return np.pad(counts, (0, num_items - len(counts)))
    rows = as_rows(directory.splits["train"])
    found = np.zeros(num_items + 1, np.int64)
    for start in range(0, rows.num_rows, AT_ONCE):
        fields = rows.take(np.arange(start, min(start + AT_ONCE, rows.num_rows)))
        if "input_item_weights" in fields:
            return None
        counted = fields["labels"][fields["weights"] > 0]
        there = np.ones(fields["ids"].shape, bool)
        if "paddings" in fields:
            there = fields["paddings"] == 0
        first = np.argmax(there, axis=1)
        firsts = fields["ids"][np.arange(len(first)), first][there.any(axis=1)]
        ids = np.concatenate([counted, firsts])
        found += np.bincount(np.clip(ids, 0, num_items), minlength=num_items + 1)
    return found[:num_items]
