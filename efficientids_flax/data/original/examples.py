"""Turns stored examples into rows: the output of the original's sequence builder in TFRecord files.

Letters: N examples, B rows, T time.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    # kind, whether it is required
    "ids":                (ID,   True),   # of a text, or of an item where `input_item_weights` is 1
    "labels":             (ID,   True),   # the ids, shifted left
    "weights":            (MASK, True),
    "input_item_weights": (MASK, True),
    "label_item_weights": (MASK, True),
    "inputs_indicator":   (MASK, False),  # 1 in the prompt
    "paddings":           (MASK, False),
    "segment_ids":        (ID,   False),  # only in packed examples
    "segment_pos":        (ID,   False),
}
# Known, but not needed: the number of prompt tokens, and item positions, which the masks give.
UNUSED = ("prefix_lengths", "item_indices", "item_embeddings", "eval_sample_weights")
# fmt: on
NEEDED = tuple(name for name, (_, needed) in FEATURES.items() if needed)


class ExampleRows(Rows):
    """Rows of stored examples, each padded or cut to one length.

    Attributes:
        length: T.
        cut: how many examples were longer.
    """

    def __init__(
        self, fields: Mapping[str, np.ndarray], offsets: np.ndarray, length: int, cut: int = 0,
        unread: Sequence[str] = (), empty: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Store examples, given as concatenated values.

        Args:
            fields: field -> values of all examples.
            offsets: int64 [N + 1], where each example begins.
            length: T.
            cut: see the class.
            unread: features of the files that are not read.
            empty: names of the files without an example.
        """
        self._fields, self._offsets, self.length, self.cut = dict(fields), offsets, length, cut
        self.num_rows, self._unread = len(offsets) - 1, tuple(unread)
        self._empty = tuple(empty)

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: the original's fields, each [B, T]; padding is 0, but 1 in `paddings`."""
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
        """See `Rows`: the number of positions that are not padding."""
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
        if self._empty:
            found.append(f"files that hold no example: {', '.join(self._empty)}")
        return tuple(found)


def read_examples(
    files: Sequence[Path], length: int | None = None, overflow: str = "error"
) -> ExampleRows:
    """Read the examples of TFRecord files.

    Args:
        files: the files, in order.
        length: T; None: that of the longest example.
        overflow: for longer examples: 'cut' drops the oldest part of the prompt except its first
            token, as `PromptBuilder` does; 'error' raises.

    Raises:
        RecordError: a record is damaged or too long, lacks a feature, or has one of another kind or
            length; names file, record and offset.
        ValueError: there is no example.
    """
    if overflow not in ("error", "cut"):
        raise ValueError(f"overflow: expected 'error' or 'cut', found {overflow!r}")
    values: dict[str, list[np.ndarray]] = {}
    places: list[tuple[int, int, int]] = []  # file, number, offset of each record
    unread: dict[str, None] = {}

    def where(example: int) -> str:
        file, number, offset = places[example]
        return f"{files[file]}: record {number} at byte {offset}"

    for index, file in enumerate(files):
        for record in read_records(file):
            places.append((index, record.number, record.offset))
            try:
                features = read_features(record.data)
                found = _fields(features)
            except ValueError as error:
                raise RecordError(f"{where(len(places) - 1)}: {error}") from error
            if len(places) == 1:
                values = {name: [] for name in found}
            if found.keys() != values.keys():
                other = sorted(found.keys() ^ values.keys())[0]
                raise RecordError(
                    f"{where(len(places) - 1)}: {other}: is in some examples, and not in others"
                )
            for name, one in found.items():
                values[name].append(one)
            unread.update(dict.fromkeys(features.keys() - FEATURES.keys() - {*UNUSED}))
    if not places:
        raise ValueError(f"{', '.join(map(str, files))}: no example")
    sizes = np.asarray([len(one) for one in values["ids"]])
    fields = {name: np.concatenate(each) for name, each in values.items()}
    del values
    example = np.repeat(np.arange(len(sizes)), sizes)
    for wrong, message in _problems(fields, example):
        raise RecordError(f"{where(int(example[wrong]))}: {message}")
    there = fields["paddings"] == 0
    sizes = np.bincount(example[there], minlength=len(sizes))
    fields = {name: values[there].astype(_dtype(name)) for name, values in fields.items()}
    longer = np.flatnonzero(sizes > length) if length is not None else []
    if len(longer):
        kept = np.ones(len(fields["ids"]), bool)
        ends = np.cumsum(sizes)
        for number in longer:
            row = {
                name: one[ends[number] - sizes[number] : ends[number]]
                for name, one in fields.items()
            }
            try:
                _cut(row, length or 0, overflow, kept[ends[number] - sizes[number] : ends[number]])
            except ValueError as error:
                raise RecordError(f"{where(int(number))}: {error}") from error
        fields = {name: one[kept] for name, one in fields.items()}
        sizes = np.minimum(sizes, length or 0)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    longest = length or int(sizes.max())
    full = {file for file, _, _ in places}
    empty = [file.name for index, file in enumerate(files) if index not in full]
    return ExampleRows(fields, offsets, longest, len(longer), sorted(unread), empty)


def _dtype(name: str) -> type[np.generic]:
    return np.float32 if name == "weights" else np.int32


def _fields(features: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The features of an example that are read; checks their kinds and lengths.

    Raises:
        ValueError: a feature is missing or wrong.
    """
    missing = [name for name in NEEDED if name not in features]
    if missing:
        told = ""
        if "item_indices" in features:
            told = (
                "; item_indices are not enough: the code of the original that reads them does not"
                " run; write the masks"
            )
        raise ValueError(
            f"lacks {', '.join(missing)}; it has {', '.join(sorted(features)) or 'nothing'}{told}"
        )
    found: dict[str, np.ndarray] = {}
    size = len(features["ids"])
    for name, (kind, _) in FEATURES.items():
        values = features.get(name)
        if values is None:
            continue
        if isinstance(values, list) or (kind == ID and values.dtype != np.int64):
            wanted = "int64" if kind == ID else "int64 or float"
            raise ValueError(f"{name}: found {kind_of(values)}, expected {wanted}")
        if len(values) != size:
            raise ValueError(f"{name}: has {len(values)} values, ids has {size}")
        found[name] = values
    found.setdefault("paddings", np.zeros(size, np.int64))
    return found


def _problems(fields: Mapping[str, np.ndarray], example: np.ndarray) -> Iterator[tuple[int, str]]:
    """Yield (index, message) for the first invalid value of each field.

    Args:
        fields: values of all examples, concatenated.
        example: the example that each value belongs to.
    """
    for name, (kind, _) in FEATURES.items():
        if name not in fields:
            continue
        values = fields[name]
        if kind == ID:
            wrong, wanted = (values < 0) | (values >= 1 << 31), "in [0, 2^31)"
        elif name == "weights":
            wrong, wanted = ~((values >= 0) & np.isfinite(values)), "at least 0, and finite"
        else:
            wrong, wanted = (values != 0) & (values != 1), "0 or 1"
        if wrong.any():
            place = int(wrong.argmax())
            yield place, f"{name}: found {values[place]}, expected {wanted}"
    there = fields["paddings"] == 0
    wrong = there[1:] & ~there[:-1] & (example[1:] == example[:-1])
    if wrong.any():
        yield int(wrong.argmax()), "paddings: expected at the end alone"


def _cut(row: Mapping[str, np.ndarray], length: int, overflow: str, kept: np.ndarray) -> None:
    """Drop the oldest part of a row's prompt, after its first token.

    Args:
        row: the row; the labels of its first token are changed in place.
        length: the length to cut it to.
        overflow: 'cut', or 'error' to raise.
        kept: bool [n], set to False for what is dropped.

    Raises:
        ValueError: the row cannot be cut, or `overflow` is 'error'.
    """
    size = len(row["ids"])
    if overflow == "error":
        raise ValueError(f"has {size} tokens, length is {length}; overflow 'cut' drops the oldest"
                         " of the prompt")  # fmt: skip
    if "segment_ids" in row:
        raise ValueError(f"has {size} tokens of several segments, length is {length}")
    surplus = size - length
    if "inputs_indicator" in row:
        spare = int(row["inputs_indicator"].sum()) - 1
    else:
        spare = int(np.argmax(row["weights"] > 0)) if (row["weights"] > 0).any() else 0
    if surplus > spare:
        raise ValueError(f"has {size - spare} tokens without its prompt, length is {length}")
    kept[1 : 1 + surplus] = False
    # Another token now follows the first one.
    for name in ("labels", "weights", "label_item_weights"):
        row[name][0] = row[name][surplus]
