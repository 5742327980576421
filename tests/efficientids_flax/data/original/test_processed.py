"""The seed port's folder: its faults put right, its pickles read without running them."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringError
from efficientids_flax.data import Reading, read_data
from efficientids_flax.data.original.objects import ObjectError, read_object
from efficientids_flax.data.rows import Rows
from efficientids_flax.stored import ItemNames

RAW = [12, 31, 40, 77, 90]  # raw ids of items 0 to 4
CLUSTER_OF = np.array([1, 0, 1, 1, 0])
LISTS = {"train": [[1, 2, 3, 4], [4, 1]], "val": [[1, 2, 3, 4, 2]], "test": [[1, 2, 3, 4, 2]]}


def write(root: Path, protocol: int = 4, shift: int = 1, **changes: Any) -> Path:
    """The folder as `process_movielens.py` writes it: item i is row i + 1 of the clustering."""
    folder = root / "processed"
    folder.mkdir(parents=True, exist_ok=True)
    for split, lists in {**LISTS, **changes.get("lists", {})}.items():
        rows = [{"user_id": np.int64(user), "item_ids": ids, "timestamps": [0.5] * len(ids),
                 "sequence_length": len(ids)} for user, ids in enumerate(lists)]  # fmt: skip
        (folder / f"{split}_sequences.pkl").write_bytes(pickle.dumps(rows, protocol))
    info = {"num_items": 5, "processing_date": "2025-01-01", "embedding_dim": 2,
            "item_to_idx": {np.int64(raw): idx for idx, raw in enumerate(RAW)}}  # fmt: skip
    info |= changes.get("info", {})
    (folder / "preprocessing_info.pkl").write_bytes(pickle.dumps(info, protocol))
    assigned = np.concatenate([np.zeros(shift, int), CLUSTER_OF])
    members, slots = np.full((2, 13), -1, np.int32), np.zeros(5 + shift, np.int32)
    for cluster in range(2):
        own = np.flatnonzero(cluster == CLUSTER_OF)
        members[cluster, : len(own)] = own + shift
        slots[own + shift] = np.arange(len(own))
    with (folder / "clustering.pkl").open("wb") as file:
        for table in (assigned, members, slots, np.ones((2, 2))):
            pickle.dump(table, file, protocol)
    for name in ("metadata", "wals", "random"):
        np.save(folder / f"item_embeddings_{name}.npy", np.ones((5, 2), np.float32))
    return folder


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shift", [0, 1])
def test_the_folder_is_data_to_train_on(protocol: int, shift: int, tmp_path: Path):
    folder = write(tmp_path, protocol, shift)
    found = read_data(tmp_path, Reading(length=3))
    assert found.clustering is not None
    assert found.clustering.cluster_of.tolist() == CLUSTER_OF.tolist()
    assert found.items == ItemNames(tuple(RAW), (None,) * 5)
    assert found.num_items == 5
    assert set(found.embeddings) == {"metadata", "wals", "random"}
    rows = {split: one for split, one in found.splits.items() if isinstance(one, Rows)}
    assert rows["train"].arrays()["labels"].tolist() == [[2, 3, 4], [1, 0, 0]]
    for split in ("eval", "test"):  # the last item, after the three before it
        batch = rows[split].arrays()
        assert (batch["ids"].tolist(), batch["labels"].tolist()) == ([[2, 3, 4]], [[3, 4, 2]])
        assert batch["weights"].tolist() == [[0, 0, 1]]
    assert f"{folder}: val and test hold the same sequences" in found.notes[0]
    assert ("row 0 is padding" in " ".join(found.notes)) == bool(shift)


def test_what_does_not_fit_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"train_sequences.pkl: sequence 1: item 5 is outside of"):
        read_data(write(tmp_path, lists={"train": [[1, 2], [1, 5]]}))
    with pytest.raises(
        ValueError, match=r"clustering.pkl: has 6 items, preprocessing_info.pkl has"
    ):
        read_data(write(tmp_path, info={"num_items": 4, "item_to_idx": None}))
    with pytest.raises(ValueError, match="item_to_idx does not number 5 items from 0"):
        read_data(write(tmp_path, info={"item_to_idx": {1: 0}}))
    folder = write(tmp_path)
    (folder / "clustering.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(ClusteringError, match=r"clustering.pkl: holds 1 pickles, expected 4"):
        read_data(folder)
    (folder / "train_sequences.pkl").write_bytes(pickle.dumps([[1, 2]]))
    with pytest.raises(ValueError, match="sequence 0: expected a dictionary whose item_ids are"):
        read_data(folder)


class Evil:
    def __reduce__(self):
        return print, ("run!",)


class Dtype:
    """A pickle may set the state of what it was given."""

    def __reduce__(self):
        return np.dtype, ("i8", False, True), (3, "x" * 3, None, None, None, -1, -1, 0)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_that_a_pickle_asks_for_is_run(protocol: int, tmp_path: Path, capsys):
    file = tmp_path / "x.pkl"
    for value, message in (
        (Evil(), "asks for '(builtins|__builtin__).print', which no plain value needs"),
        ([{"item_ids": [Evil()]}], "asks for"),
        (np.arange(3), "asks for"),  # an array: not a plain value
        (np.array(["a"])[0], "asks for|has a dtype|is no readable"),
        (Dtype(), "has a dtype of order 'xxx'"),
    ):
        file.write_bytes(pickle.dumps(value, protocol))
        with pytest.raises(ObjectError, match=f"{file}: {message}"):
            read_object(file)
    assert capsys.readouterr().out == ""
    value = {"a": [1, -(1 << 40), 0.5, None, True, "ü", b"x"], "b": ((), {})}
    numbers = [np.int64(7), np.float32(0.25), np.bool_(True), np.int8(-3), np.uint16(9)]
    file.write_bytes(pickle.dumps({**value, "n": numbers}, protocol))
    found = read_object(file)
    assert found == {**value, "n": [7, 0.25, True, -3, 9]}
    assert [type(one) for one in found["n"]] == [int, float, bool, int, int]


def test_a_damaged_pickle_is_named(tmp_path: Path):
    file = tmp_path / "x.pkl"
    content = pickle.dumps([{"item_ids": [1, 2, 3]}])
    for place in range(len(content)):
        file.write_bytes(content[:place])
        with pytest.raises(ObjectError, match=f"{file}: is no readable pickle"):
            read_object(file)
