"""A directory of data: the rows of each split, the clustering, and the names of the items.

Its kind is recognised by its files, see `KINDS`: the output of `prepare`, the original's examples,
the folder of the seed port, or arrays: `train.npz`, `eval.npz` (or `valid.npz`) and `test.npz` with
the fields of a batch, each [N, T]; or with `sequences` int [N, T + 1], padded with -1 at the end,
in which each item predicts the next. The clustering is `clustering.npz`, `.safetensors` or `.pkl`;
an optional `items.jsonl` names the items, see `stored.item_names`.
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.data.reading import Reading
from efficientids_flax.data.rows import Arrays, Rows
from efficientids_flax.prepared_format import MANIFEST, SHARD
from efficientids_flax.stored import ItemNames, read_item_names

SPLITS = {"train": ("train",), "eval": ("eval", "valid", "val"), "test": ("test",)}
CLUSTERINGS = ("clustering.npz", "clustering.safetensors", "clustering.pkl")


@dataclass(frozen=True)
class DataDirectory:
    """The content of a directory of data.

    Attributes:
        splits: 'train', and possibly 'eval' and 'test' -> fields of a batch, [N, T]; or `Rows`,
            which make them on demand.
        clustering: the clustering; None: there is none.
        items: names of the items, from `items.jsonl`; None: unknown.
        catalogue: digest of their ids, see `digests.catalogue_digest`; None: unknown.
        num_items: I; None: unknown.
        embeddings: name -> file of item embeddings, float [I, E]; 'data' is that of the directory.
        notes: messages about data that was left out, with counts.
        path: the directory.
    """

    splits: dict[str, Arrays | Rows] = field(default_factory=dict)
    clustering: ClusteringInfo | None = None
    items: ItemNames | None = None
    catalogue: str | None = None
    num_items: int | None = None
    embeddings: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    path: Path | None = None


def read_data(path: str | os.PathLike[str], reading: Reading | None = None) -> DataDirectory:
    """Read a directory, or the `processed/` in it.

    Args:
        path: the directory.
        reading: how sequences and examples become rows; arrays are used as they are.

    Raises:
        FileNotFoundError: it has no training data.
        ValueError: files are damaged, or do not fit together.
        ImportError: a package for reading them is missing.
    """
    root = Path(path)
    root = root / "processed" if (root / "processed").is_dir() else root
    for there, read in KINDS.values():
        if there(root):
            return read(root, reading or Reading())
    raise FileNotFoundError(
        f"{root}: holds no data to train on; expected one of {', '.join(KINDS)}. Arrays are fields"
        " of a batch, each [N, T]"
    )


def next_items(sequences: np.ndarray) -> Arrays:
    """The fields of a batch in which each item of a sequence predicts the next.

    Args:
        sequences: int [N, T + 1], padded with -1 at the end.

    Returns:
        `ids`, `labels` int32, `weights`, `paddings` float32, each [N, T].

    Raises:
        ValueError: the shape is wrong, or -1 stands before an item.
    """
    if sequences.ndim != 2 or sequences.shape[1] < 2 or sequences.dtype.kind not in "iu":
        raise ValueError(
            f"sequences: found {list(sequences.shape)} of {sequences.dtype}, expected integers"
            " [N, T + 1] with T > 0"
        )
    there = sequences >= 0
    if (~there[:, :-1] & there[:, 1:]).any():
        raise ValueError(
            "sequences: -1 stands before an item; it is padding, and may only follow the last one"
        )
    both = there[:, :-1] & there[:, 1:]
    return {
        "ids": np.where(there[:, :-1], sequences[:, :-1], 0).astype(np.int32),
        "labels": np.where(both, sequences[:, 1:], 0).astype(np.int32),
        "weights": both.astype(np.float32),
        "paddings": (~there[:, :-1]).astype(np.float32),
    }


def _clustering_of(root: Path) -> tuple[Path | None, ClusteringInfo | None]:
    """(file, clustering) of a directory."""
    found = [root / name for name in CLUSTERINGS if (root / name).is_file()]
    if not found:
        return None, None
    load = ClusteringInfo.from_pickle if found[0].suffix == ".pkl" else ClusteringInfo.from_file
    return found[0], load(found[0])


def _read_arrays(root: Path, reading: Reading) -> DataDirectory:
    del reading
    splits: dict[str, Arrays | Rows] = {}
    for split, names in SPLITS.items():
        files = [root / f"{name}.npz" for name in names if (root / f"{name}.npz").is_file()]
        if files:
            splits[split] = _fields(files[0], _stored(files[0]))
    return DataDirectory(splits, _clustering_of(root)[1], read_item_names(root), path=root)


def _stored(path: Path) -> Arrays:
    """The arrays of a file.

    Raises:
        ValueError: it is no .npz of arrays, or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as an .npz of arrays: {error}") from error


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


def _read_prepared(root: Path, reading: Reading) -> DataDirectory:
    from efficientids_flax.data.prepared import check_catalogue, check_vectors, open_prepared
    from efficientids_flax.data.reading import rows_of

    prepared = open_prepared(root, verify=reading.verify)
    digest, num_items = prepared.manifest.catalogue, prepared.num_items
    file, clustering = _clustering_of(root)
    if clustering is not None:
        theirs = clustering.catalogue
        check_catalogue(str(file), theirs, clustering.num_items, str(root), digest, num_items)
    embeddings = {}
    if (file := root / "embeddings.npy").is_file():
        check_vectors(file, str(root), digest, num_items)
        embeddings["data"] = file
    shards = None
    if reading.share is not None:
        index, count = reading.share
        shards = range(index, len(prepared.shards), count)
        if not shards:
            raise ValueError(
                f"{root}: {len(prepared.shards)} shards are too few for {count} processes that"
                " each read their own; prepare the data with more shards"
            )
    sequences = prepared.sequences(shards)
    try:
        rows, notes = rows_of(sequences, reading, prepared.names())
    except ValueError as error:
        raise ValueError(f"{root}: {error}") from None
    return DataDirectory(
        dict(rows), clustering, prepared.names(), digest, num_items, embeddings, notes, root
    )


def _read_examples(root: Path, reading: Reading) -> DataDirectory:
    from efficientids_flax.data.original import example_files, read_examples
    from efficientids_flax.data.rows import PackedRows

    splits: dict[str, Arrays | Rows] = {}
    notes: list[str] = []
    for split, files in example_files(root).items():
        rows: Rows = read_examples(files, reading.length, reading.overflow)
        if reading.pack and split == "train":
            if "segment_ids" in rows.take(rows.first):
                raise ValueError(f"{root}: pack: the examples are packed already (segment_ids)")
            length = rows.take(rows.first)["ids"].shape[1]
            rows = PackedRows(rows, reading.length or length)
        splits[split] = rows
        notes += [f"{split}: {note}" for note in rows.notes]
    if "train" not in splits:
        raise FileNotFoundError(f"{root}: no examples to train on (train*.tfrecord*)")
    return DataDirectory(
        splits, _clustering_of(root)[1], read_item_names(root), notes=tuple(notes), path=root
    )


def _read_seed(root: Path, reading: Reading) -> DataDirectory:
    from efficientids_flax.data.original import read_processed
    from efficientids_flax.data.reading import rows_of

    found = read_processed(root)
    try:
        rows, notes = rows_of(found.sequences, reading, found.items)
    except ValueError as error:
        raise ValueError(f"{root}: {error}") from None
    return DataDirectory(
        dict(rows), found.clustering, found.items, found.catalogue, found.num_items,
        found.embeddings, (*found.notes, *notes), root,
    )  # fmt: skip


def _has_file(name: str) -> Callable[[Path], bool]:
    return lambda root: (root / name).is_file()


def _has_shards(root: Path) -> bool:
    return (root / MANIFEST).is_file() or any(SHARD.fullmatch(one.name) for one in root.glob("*"))


def _has_examples(root: Path) -> bool:
    from efficientids_flax.data.original import example_files

    return root.is_dir() and bool(example_files(root))


Kind = tuple[Callable[[Path], bool], Callable[[Path, Reading], DataDirectory]]
# fmt: off
KINDS: Mapping[str, Kind] = {
    # the file by which it is recognised   (test for it, reader)
    "train.npz of arrays":                  (_has_file("train.npz"), _read_arrays),
    "manifest.json of prepare":             (_has_shards, _read_prepared),
    "train_sequences.pkl of the seed port": (_has_file("train_sequences.pkl"), _read_seed),
    "*.tfrecord* of the original":          (_has_examples, _read_examples),
}
# fmt: on
