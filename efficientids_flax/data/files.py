"""A directory of prepared data: arrays of each split, and the clustering.

`train.npz`, `eval.npz` (or `valid.npz`) and `test.npz` hold the fields of a batch, each [N, T]; or
`sequences` int [N, T + 1], filled up with -1 at the end, whose every item predicts the next. The
clustering is `clustering.npz`, `.safetensors` or `.pkl`; `items.jsonl`, if there, says what the
items are called, see `stored.item_names`.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.stored import ItemNames, read_item_names

SPLITS = {"train": ("train",), "eval": ("eval", "valid", "val"), "test": ("test",)}
CLUSTERINGS = ("clustering.npz", "clustering.safetensors", "clustering.pkl")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class DataDirectory:
    """What is there.

    Attributes:
        splits: 'train', and perhaps 'eval' and 'test' -> fields of a batch, [N, T].
        clustering: None where there is none.
        items: what the items are called, of `items.jsonl`; None where nobody says.
    """

    splits: dict[str, Arrays] = field(default_factory=dict)
    clustering: ClusteringInfo | None = None
    items: ItemNames | None = None


def read_data(path: str | os.PathLike[str]) -> DataDirectory:
    """Read a directory, or the `processed/` in it.

    Raises:
        FileNotFoundError: it has no training data.
        ValueError: arrays that do not fit each other.
    """
    root = Path(path)
    root = root / "processed" if (root / "processed").is_dir() else root
    splits = {}
    for split, names in SPLITS.items():
        files = [root / f"{name}.npz" for name in names if (root / f"{name}.npz").is_file()]
        if files:
            with np.load(files[0], allow_pickle=False) as stored:
                splits[split] = _fields(files[0], dict(stored))
    if "train" not in splits:
        raise FileNotFoundError(f"{root}: no train.npz; it holds the fields of a batch, [N, T]")
    found = [root / name for name in CLUSTERINGS if (root / name).is_file()]
    items = read_item_names(root)
    if not found:
        return DataDirectory(splits, None, items)
    load = ClusteringInfo.from_pickle if found[0].suffix == ".pkl" else ClusteringInfo.from_file
    return DataDirectory(splits, load(found[0]), items)


def next_items(sequences: np.ndarray) -> Arrays:
    """A batch's fields, in which each item of a sequence predicts the next.

    Args:
        sequences: int [N, T + 1]; -1 after the end of one that is shorter.

    Returns:
        `ids`, `labels` int32, `weights`, `paddings` float32, each [N, T].

    Raises:
        ValueError: of another shape, or -1 before an item.
    """
    if sequences.ndim != 2 or sequences.shape[1] < 2 or sequences.dtype.kind not in "iu":
        raise ValueError(
            f"sequences: found {list(sequences.shape)} of {sequences.dtype}, expected integers"
            " [N, T + 1] with T > 0"
        )
    there = sequences >= 0
    if (~there[:, :-1] & there[:, 1:]).any():
        raise ValueError("sequences: -1 stands before an item; it fills up the end alone")
    both = there[:, :-1] & there[:, 1:]
    return {
        "ids": np.where(there[:, :-1], sequences[:, :-1], 0).astype(np.int32),
        "labels": np.where(both, sequences[:, 1:], 0).astype(np.int32),
        "weights": both.astype(np.float32),
        "paddings": (~there[:, :-1]).astype(np.float32),
    }


def _fields(path: Path, arrays: Arrays) -> Arrays:
    try:
        arrays = next_items(arrays["sequences"]) if "sequences" in arrays else arrays
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    lengths = {name: len(value) for name, value in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"{path}: expected as many rows in each array, found {lengths}")
    if not any(lengths.values()):
        raise ValueError(f"{path}: has no rows; leave the file out, or give it some")
    if "weights" in arrays and not np.any(arrays["weights"]):
        raise ValueError(
            f"{path}: has no label in its {lengths['weights']} rows: every weight is 0"
            " (sequences of one item predict nothing)"
        )
    return arrays
