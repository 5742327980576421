"""The original's examples, stored and read again: the batches that its recordings were made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efficientids_flax.data import Reading, read_data
from efficientids_flax.data.original import RecordError, example_files, read_examples
from efficientids_flax.data.rows import Rows
from tests.efficientids_flax.data.sequences import message, recorded, unpacked, write_records

T = 24


def files_of(root: Path, examples: list[dict[str, Any]], suffix: str = "", **how: Any) -> Path:
    records = [message(one, **how) for one in examples]
    return write_records(root / f"games-train.tfrecord{suffix}", records)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("name", "suffix"), [("interleaved", ".gz"), ("packed", "")])
def test_stored_examples_become_the_recorded_batch(
    name: str, suffix: str, packed: bool, tmp_path: Path
):
    """Padded, and packed by first-fit; protobuf packs lists of numbers or not."""
    wanted = recorded(name)
    examples = unpacked(wanted)
    for one in examples:  # as the original's sequence builder has them
        one["weights"] = [float(weight) for weight in one["weights"]]  # type: ignore[misc]
        one["prefix_lengths"] = [sum(one["inputs_indicator"])]
    files_of(tmp_path, examples, suffix, packed=packed)
    found = read_data(tmp_path, Reading(length=T, pack=name == "packed"))
    rows = found.splits["train"]
    assert isinstance(rows, Rows)
    batch = rows.arrays()
    assert batch.keys() >= {"ids", "labels", "inputs_indicator", "paddings"}
    for field, values in batch.items():
        np.testing.assert_array_equal(values, wanted[field], err_msg=field)
    assert not any("not read" in note for note in found.notes)


def test_padded_examples_are_those_without_padding(tmp_path: Path):
    wanted = recorded("interleaved")
    kept = [name for name, values in wanted.items() if values.shape[1:] == (T,)]
    padded = [{name: wanted[name][row].astype(int).tolist() for name in kept} for row in range(3)]
    found = read_examples([files_of(tmp_path, padded)])
    assert found.length == max(len(one["ids"]) for one in unpacked(wanted))
    for name, values in found.arrays().items():
        np.testing.assert_array_equal(values, wanted[name][:, : found.length], err_msg=name)


ONE = {
    "ids": [0, 5, 102, 1], "labels": [5, 7, 1, 0], "weights": [0, 1, 1, 0],
    "input_item_weights": [0, 0, 1, 0], "label_item_weights": [0, 1, 0, 0],
    "inputs_indicator": [1, 1, 0, 0],
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "missing": (
        {"labels": None, "weights": None, "item_indices": [2]},
        "lacks labels, weights; it has ids, .* item_indices are not enough",
    ),
    "kind": ({"ids": [0.0, 5.0, 102.0, 1.0]}, "ids: found float, expected int64"),
    "bytes": ({"weights": [b"a"] * 4}, "weights: found bytes, expected int64 or float"),
    "length": ({"labels": [5, 7, 1]}, "labels: has 3 values, ids has 4"),
    "mask": ({"label_item_weights": [0, 2, 0, 0]}, "label_item_weights: found 2, expected 0 or 1"),
    "negative": ({"labels": [5, -7, 1, 0]}, r"labels: found -7, expected in \[0, 2\^31\)"),
    "large": ({"ids": [1 << 40, 5, 2, 1]}, r"ids: found 1099511627776, expected in \[0, 2\^31\)"),
    "weight": (
        {"weights": [0.0, -1.0, 1.0, 0.0]},
        "weights: found -1.0, expected at least 0, and finite",
    ),
    "paddings": ({"paddings": [0, 1, 0, 0]}, "paddings: expected at the end alone"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_named_with_its_record(case: str, tmp_path: Path):
    changes, text = CASES[case]
    wrong = {name: value for name, value in {**ONE, **changes}.items() if value is not None}
    file = files_of(tmp_path, [ONE, wrong])
    offset = 16 + len(message(ONE))
    with pytest.raises(RecordError, match=f"{file}: record 1 at byte {offset}: {text}"):
        read_examples([file])


def test_what_is_no_example_is_named(tmp_path: Path):
    file = write_records(tmp_path / "train.tfrecord", [b"user,item\n"])
    with pytest.raises(RecordError, match=r"record 0 at byte 0: is no tf.train.Example"):
        read_examples([file])
    with pytest.raises(ValueError, match=r"train.tfrecord: no example"):
        read_examples([write_records(tmp_path / "train.tfrecord", [])])


def test_an_example_that_is_too_long_loses_the_oldest_of_its_prompt(tmp_path: Path):
    """As `PromptBuilder` cuts it: the first token stays, and what follows it now is its label."""
    one = unpacked(recorded("interleaved"))[1]
    one["foreign"] = [3]
    file = files_of(tmp_path, [one])
    with pytest.raises(RecordError, match="has 14 tokens, length is 10; overflow 'cut'"):
        read_examples([file], 10)
    empty = write_records(tmp_path / "games-train.tfrecord-1", [])
    rows = read_examples([file, empty], 10, "cut")
    found = {name: values[0].tolist() for name, values in rows.arrays().items()}
    assert found["ids"] == [one["ids"][0], *one["ids"][5:]]
    assert found["labels"] == [one["ids"][5], *one["labels"][5:]]
    assert found["weights"] == [0, *one["weights"][5:]]
    assert found["label_item_weights"] == [0, *one["label_item_weights"][5:]]
    assert rows.notes == (
        "1 of 1 examples are longer than 10: the oldest of their prompts is left out",
        "features that are not read: foreign",
        "files that hold no example: games-train.tfrecord-1",
    )
    with pytest.raises(RecordError, match="has 6 tokens without its prompt, length is 5"):
        read_examples([file], 5, "cut")


def test_packed_examples_stay_as_they_are(tmp_path: Path):
    wanted = recorded("packed")
    names = [name for name in wanted if name != "prefix_lengths"]
    files_of(tmp_path, [{n: wanted[n][row].tolist() for n in names} for row in range(3)])
    found = read_data(tmp_path).splits["train"]
    assert isinstance(found, Rows)
    for name, values in found.arrays().items():
        np.testing.assert_array_equal(values, wanted[name], err_msg=name)
    with pytest.raises(ValueError, match=r"pack: the examples are packed already"):
        read_data(tmp_path, Reading(pack=True))


def test_splits_are_told_by_names(tmp_path: Path):
    names = ["x-train.tfrecord-00000-of-00002", "x-train.tfrecord-00001-of-00002",
             "x_validation.tfrecords.gz", "test.tfrecord"]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    found = example_files(tmp_path)
    assert {split: [file.name for file in files] for split, files in found.items()} == {
        "train": names[:2], "eval": names[2:3], "test": names[3:],
    }  # fmt: skip
    (tmp_path / names[1]).unlink()
    with pytest.raises(ValueError, match=r"00000-of-00002: x-train.tfrecord-00001-of-00002 is"):
        example_files(tmp_path)
    (tmp_path / "more.tfrecord").touch()
    with pytest.raises(ValueError, match=r"more.tfrecord: of which split is it"):
        example_files(tmp_path)
