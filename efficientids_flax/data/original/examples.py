"""The original's examples as rows: what its sequence builder made, stored in TFRecord files.

Letters: N examples, B rows, T time.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.data.original.messages import kind_of, read_features
from efficientids_flax.data.original.records import RecordError, read_records
from efficientids_flax.data.rows import Arrays, Rows
from efficientids_flax.digests import digest

ID, MASK = "id", "mask"
# fmt: off
FEATURES: Mapping[str, tuple[str, bool]] = {
    # feature              kind, whether it has to be there
    "ids":                (ID,   True),   # of a text, or of an item where `input_item_weights` is 1
    "labels":             (ID,   True),   # the ids, shifted left
    "weights":            (MASK, True),
    "input_item_weights": (MASK, True),
    "label_item_weights": (MASK, True),
    "inputs_indicator":   (MASK, False),  # 1 in the prompt
    "paddings":           (MASK, False),
    "segment_ids":        (ID,   False),  # of examples that were packed
    "segment_pos":        (ID,   False),
}
# Known, and not needed: the number of prompt tokens; where items stand (the masks say it).
UNUSED = ("prefix_lengths", "item_indices", "item_embeddings", "eval_sample_weights")
# fmt: on
SPLITS = {"train": "train", "eval": "eval|valid|validation|val|dev", "test": "test"}
RECORDS = re.compile(r"\.tfrecords?(\b|[-_.])")
NEEDED = tuple(name for name, (_, needed) in FEATURES.items() if needed)


def example_files(directory: Path) -> dict[str, list[Path]]:
    """Split -> its files, by their names: `train.tfrecord`, `x-test.tfrecord-00000-of-00002`.

    Raises:
        ValueError: a file is of no split, or shards are missing.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir()):
        if not (named := RECORDS.search(path.name)) or not path.is_file():
            continue
        stem = path.name[: named.start()]
        splits = [
            split for split, names in SPLITS.items()
            if re.search(rf"(^|[-_.])({names})([-_.]|$)", stem)
        ]  # fmt: skip
        if len(splits) != 1:
            raise ValueError(
                f"{path}: of which split is it? expected train, valid or test in its name"
            )
        found.setdefault(splits[0], []).append(path)
    for files in found.values():
        _check_shards(files)
    return found


def _check_shards(files: Sequence[Path]) -> None:
    for path in files:
        if shard := re.search(r"-(\d+)-of-(\d+)", path.name):
            begin, end = path.name[: shard.start()], path.name[shard.end() :]
            numbers = range(int(shard[2]))
            names = [
                f"{begin}-{n:0{len(shard[1])}d}-of-{shard[2]}{end}" for n in numbers
            ]  # fmt: skip
            if missing := [name for name in names if not path.with_name(name).is_file()]:
                raise ValueError(
                    f"{path}: {missing[0]} is missing"
                    f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}"
                )


class ExampleRows(Rows):
    """Rows of stored examples, each filled up or cut to one length.

    Attributes:
        length: T.
        cut: examples that were longer.
    """

    def __init__(
        self, fields: Mapping[str, np.ndarray], offsets: np.ndarray, length: int, cut: int = 0,
        unread: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Of examples that lie one after another.

        Args:
            fields: field -> values of all examples.
            offsets: int64 [N + 1], where each begins.
            length: T.
            cut: see the class.
            unread: features of the files that are not read.
        """
        self._fields, self._offsets, self.length, self.cut = dict(fields), offsets, length, cut
        self.num_rows, self._unread = len(offsets) - 1, tuple(unread)

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: the original's fields, each [B, T]; padding has 0 but `paddings` 1."""
        starts = self._offsets[places]
        time = np.arange(self.length)
        there = time < (self._offsets[places + 1] - starts)[:, None]
        index = np.where(there, starts[:, None] + time, 0)
        found = {}
        for name, values in self._fields.items():
            found[name] = np.where(there, values[index], values.dtype.type(name == "paddings"))
        return found

    @property
    def sizes(self) -> np.ndarray:
        """See `Rows`: positions that are no padding."""
        return np.diff(self._offsets).astype(np.int32)

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        told = {name: digest(value) for name, value in sorted(self._fields.items())}
        return {**told, "offsets": digest(self._offsets), "length": self.length}

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`."""
        found = []
        if self.cut:
            found.append(
                f"{self.cut} of {self.num_rows} examples are longer than {self.length}: the oldest"
                " of their prompts is left out"
            )
        if self._unread:
            found.append(f"features that are not read: {', '.join(self._unread)}")
        return tuple(found)


def read_examples(
    files: Sequence[Path], length: int | None = None, overflow: str = "error"
) -> ExampleRows:
    """The examples of TFRecord files.

    Args:
        files: in order.
        length: T; None: that of the longest.
        overflow: of a longer example, 'cut' drops the oldest of its prompt but the first token, as
            `PromptBuilder` does.

    Raises:
        RecordError: naming file, record and offset: it is damaged, lacks a feature, or has one of
            another kind or length, or is too long.
        ValueError: there is no example.
    """
    if overflow not in ("error", "cut"):
        raise ValueError(f"overflow: expected 'error' or 'cut', found {overflow!r}")
    rows: list[dict[str, np.ndarray]] = []
    unread: dict[str, None] = {}
    cut = 0
    for file in files:
        for record in read_records(file):
            where = f"{file}: record {record.number} at byte {record.offset}"
            try:
                features = read_features(record.data)
                row = _row(features)
                if length is not None and len(row["ids"]) > length:
                    row, cut = _cut(row, length, overflow), cut + 1
            except ValueError as error:
                raise RecordError(f"{where}: {error}") from error
            rows.append(row)
            unread.update(dict.fromkeys(features.keys() - FEATURES.keys() - {*UNUSED}))
    if not rows:
        raise ValueError(f"{', '.join(map(str, files))}: no example")
    names = [name for name in FEATURES if any(name in row for row in rows)]
    if lacking := [(n, name) for n, row in enumerate(rows) for name in names if name not in row]:
        number, name = lacking[0]
        raise RecordError(f"{files[0].parent}: example {number} lacks {name}, which others have")
    sizes = np.asarray([len(row["ids"]) for row in rows])
    fields = {name: np.concatenate([row[name] for row in rows]) for name in names}
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return ExampleRows(fields, offsets, length or int(sizes.max()), cut, sorted(unread))


def _row(features: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The fields of an example, without what fills it up.

    Raises:
        ValueError: what is missing or wrong.
    """
    missing = [name for name in NEEDED if name not in features]
    if missing:
        told = ""
        if "item_indices" in features:
            told = (
                "; item_indices alone do not say it: the original's way through them does not run,"
                " write the masks"
            )
        raise ValueError(
            f"lacks {', '.join(missing)}; it has {', '.join(sorted(features)) or 'nothing'}{told}"
        )
    row: dict[str, np.ndarray] = {}
    size = len(features["ids"])
    for name, (kind, _) in FEATURES.items():
        if (values := features.get(name)) is None:
            continue
        if isinstance(values, list) or (kind == ID and values.dtype != np.int64):
            wanted = "int64" if kind == ID else "int64 or float"
            raise ValueError(f"{name}: found {kind_of(values)}, expected {wanted}")
        if len(values) != size:
            raise ValueError(f"{name}: has {len(values)} values, ids has {size}")
        if kind == MASK and name != "weights" and not np.isin(values, (0, 1)).all():
            wrong = values[~np.isin(values, (0, 1))][0]
            raise ValueError(f"{name}: found {wrong}, expected 0 or 1")
        if kind == ID and values.size and not 0 <= values.min() <= values.max() < 1 << 31:
            wrong = values[(values < 0) | (values >= 1 << 31)][0]
            raise ValueError(f"{name}: found {wrong}, expected in [0, 2^31)")
        if not np.isfinite(values).all() or (name == "weights" and (values < 0).any()):
            raise ValueError(f"{name}: found values that are below 0 or not finite")
        row[name] = values.astype(np.float32 if name == "weights" else np.int32)
    row.setdefault("paddings", np.zeros(size, np.int32))
    there = row["paddings"] == 0
    if (there[1:] & ~there[:-1]).any():
        raise ValueError("paddings: expected at the end alone")
    return {name: values[there] for name, values in row.items()}


def _cut(row: dict[str, np.ndarray], length: int, overflow: str) -> dict[str, np.ndarray]:
    """A row without the oldest of its prompt.

    Raises:
        ValueError: it cannot be cut, or is not to be.
    """
    size = len(row["ids"])
    if overflow == "error":
        raise ValueError(f"has {size} tokens, length is {length}; overflow 'cut' drops the oldest"
                         " of the prompt")  # fmt: skip
    if "segment_ids" in row:
        raise ValueError(f"has {size} tokens of several segments, length is {length}")
    # What is dropped stands behind the first token, and has no label that counts.
    surplus = size - length
    if "inputs_indicator" in row:
        spare = int(row["inputs_indicator"].sum()) - 1
    else:
        spare = int(np.argmax(row["weights"] > 0)) if (row["weights"] > 0).any() else 0
    if surplus > spare:
        raise ValueError(f"has {size - spare} tokens without its prompt, length is {length}")
    kept = np.delete(np.arange(size), np.s_[1 : 1 + surplus])
    found = {name: values[kept] for name, values in row.items()}
    # The first token is followed by another one now.
    found["labels"][0] = row["labels"][surplus]
    for name in ("weights", "label_item_weights"):
        found[name][0] = row[name][surplus]
    return found
