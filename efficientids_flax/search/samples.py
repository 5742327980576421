"""Reads sequences for judging settings: arrays, lists of tokens, or text.

Letters: B sequences, T time.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.array_checks import repeats_ids
from efficientids_flax.data.files import next_items

LEAST = 8  # with fewer sequences, a standard error means nothing
LINES = (".jsonl", ".json", ".ndjson")
# Fields that a batch may have; other names in a file are an error.
FIELDS = (
    "ids", "labels", "weights", "paddings", "segment_ids", "segment_pos", "inputs_indicator",
    "input_item_weights", "label_item_weights",
)  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Sequences with their labels.

    Attributes:
        batch: fields of a batch, each [B, T].
        name: name of the file, for messages.
    """

    batch: Mapping[str, np.ndarray]
    name: str = "the samples"

    def __post_init__(self) -> None:
        """Check that there is enough data.

        Raises:
            ValueError: fields are missing or differ in shape, too few sequences, or no labels.
        """
        missing = [name for name in ("ids", "labels", "weights") if name not in self.batch]
        if missing:
            raise ValueError(
                f"{self.name}: {', '.join(missing)} missing; expected ids, labels and weights"
                f" [B, T], found {', '.join(sorted(self.batch)) or 'nothing'}"
            )
        if unknown := sorted(set(self.batch) - set(FIELDS)):
            raise ValueError(
                f"{self.name}: {', '.join(unknown)}: no field of a batch; known are"
                f" {', '.join(FIELDS)}"
            )
        shape = np.shape(self.batch["ids"])
        for name, value in self.batch.items():
            if np.ndim(value) != 2 or np.shape(value) != shape:
                raise ValueError(
                    f"{self.name}: {name}: found {list(np.shape(value))}, expected [B, T] as ids"
                    f" {list(shape)}"
                )
        counted = int((np.asarray(self.batch["weights"]) > 0).any(axis=1).sum())
        if counted < LEAST:
            raise ValueError(
                f"{self.name}: {counted} sequences with labels; differences between settings need"
                f" at least {LEAST}, better 64. Give more, or cut long ones with --length"
            )
        if not self.answers_are_seen and (problem := repeats_ids(self.batch)):
            # The search would prefer settings that make a model repeat its input.
            raise ValueError(f"{self.name}: {problem}")

    @property
    def count(self) -> int:
        """B."""
        return len(self.batch["ids"])

    @property
    def different(self) -> int:
        """The number of distinct sequences; repetitions add no evidence."""
        return len(np.unique(np.asarray(self.batch["ids"]), axis=0))

    @property
    def weight(self) -> np.ndarray:
        """Total weight of each sequence's labels, float64 [B]."""
        return np.asarray(self.batch["weights"], np.float64).sum(axis=1)

    @property
    def answers_are_seen(self) -> bool:
        """Whether labels are the next inputs, so that a model of them must be causal."""
        ids, labels = np.asarray(self.batch["ids"]), np.asarray(self.batch["labels"])
        there = np.asarray(self.batch["weights"])[:, :-1] > 0
        same = ids[:, 1:] == labels[:, :-1]
        return bool(there.any() and same[there].mean() > 0.9)


def read_samples(
    path: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    length: int = 128,
    most: int = 256,
) -> Samples:
    """Read the first `most` sequences of a file.

    Args:
        path: `.npz` with the fields of a batch [B, T], or with `sequences` int [B, T + 1]; `.jsonl`
            with one list of tokens per line; or, with a tokenizer, text with one document per line.
        tokenizer: a tokenizer from `load_tokenizer`.
        length: T of sequences made of lists or text; longer ones are cut into several.
        most: maximal B.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is malformed; names the line or field. See also `Samples`.
    """
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"{place}: no such file of sequences")
    if place.suffix == ".npz":
        if tokenizer is not None:
            raise ValueError(f"{place}: holds arrays, for which no tokenizer is needed")
        return _of_arrays(place, most)
    if tokenizer is None and place.suffix not in LINES:
        raise ValueError(
            f"{place}: is read as text, which needs a tokenizer; tokens come as .npz or .jsonl"
        )
    lists = _tokenized(place, tokenizer) if tokenizer is not None else _lists(place)
    pieces: list[list[int]] = []
    for tokens in lists:
        # Each piece begins with the last token of the one before, so that no label is lost.
        for start in range(0, max(len(tokens) - 1, 0), length):
            pieces.append(tokens[start : start + length + 1])
        if len(pieces) >= most:
            break
    pieces = [piece for piece in pieces[:most] if len(piece) > 1]
    if not pieces:
        raise ValueError(f"{place}: holds no sequence of two tokens or more")
    rows = np.full((len(pieces), max(map(len, pieces))), -1)
    for row, piece in zip(rows, pieces, strict=True):
        row[: len(piece)] = piece
    return Samples(next_items(rows), str(place))


def _of_arrays(place: Path, most: int) -> Samples:
    try:
        with np.load(place, allow_pickle=False) as file:
            arrays = dict(file)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{place}: is no .npz of arrays: {error}") from error
    if "sequences" in arrays:
        try:
            arrays = next_items(arrays["sequences"])
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    return Samples({name: value[:most] for name, value in arrays.items()}, str(place))


def _lists(place: Path) -> Iterator[list[int]]:
    """Yield one list of tokens per line."""
    with place.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{place}:{number}: is no JSON: {error}") from error
            if not isinstance(found, list) or not all(
                isinstance(token, int) and not isinstance(token, bool) and 0 <= token < 1 << 31
                for token in found
            ):
                raise ValueError(f"{place}:{number}: expected a list of tokens, such as [1, 5, 2]")
            yield found


def _tokenized(place: Path, tokenizer: Any) -> Iterator[list[int]]:
    """Yield the tokens of one document per line."""
    with place.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield list(tokenizer(line.rstrip("\n"))["input_ids"])
