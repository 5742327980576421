"""Prepared directories: what is read, and what is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.data import Reading, open_prepared, read_data
from efficientids_flax.data.rows import Rows
from tests.efficientids_flax.data.directories import EVENTS, ITEMS, write_prepared


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def test_the_sequences_are_those_of_the_shards(root: Path):
    prepared = open_prepared(root, verify=True)
    found = prepared.sequences()
    for user, (items, splits) in enumerate(EVENTS):
        begin, valid, test, end = found.offsets[user]
        assert found.items[begin:end].tolist() == list(items)
        assert [valid - begin, test - begin] == [splits.count(0), len(splits) - splits.count(2)]
    trained = [item for items, splits in EVENTS for item in items[: splits.count(0)]]
    assert prepared.items["cold"].tolist() == [item not in trained for item in range(ITEMS)]
    assert prepared.users["id"] == [f"u{user}" for user in range(len(EVENTS))]
    own = [prepared.sequences([shard]) for shard in range(2)]  # of two processes
    assert np.concatenate([one.items for one in own]).tolist() == found.items.tolist()
    assert own[1].users.tolist() == [3, 4, 5]
    assert len({found.digest, own[0].digest, own[1].digest}) == 3


def test_it_is_data_to_train_on(root: Path):
    found = read_data(root, Reading(length=3, pack=True))
    assert found.splits.keys() == {"train", "eval", "test"}
    assert found.items is not None
    assert (found.items.ids[2], found.num_items) == ("film,2", ITEMS)
    assert all(isinstance(rows, Rows) for rows in found.splits.values())
    assert found.notes[0] == (
        "train: 3 of 6 users have fewer than two events to train on, and no row"
    )
    assert any(note.startswith("packed: 4 rows in 4; 91.7% of") for note in found.notes)
    with pytest.raises(ValueError, match="2 shards are too few for 3 processes"):
        read_data(root, Reading(share=(2, 3)))


CASES = {
    "interactions.item": (np.full(24, 11, np.int32), r"row 0: item 11 is outside of \[0, 10\)"),
    "interactions.user": (np.zeros(24, np.int64), "user: found int64, expected int32"),
    "interactions.split": (
        np.arange(23, -1, -1).astype(np.int8) % 2,
        r"interactions: event \d+: split 0 after 1",
    ),
    "items.item": (np.arange(10, 0, -1).astype(np.int32), "row 0: item 10, expected 0"),
    "items.id": (["a"] * 10, "the ids have digest .*, the manifest has"),
    "manifest.counts": ({"interactions": 3}, "the shards have 24 interactions, the manifest has 3"),
    "manifest.format": ("parquet", "format: found 'parquet', expected 'efficientids-data'"),
    "manifest.version": (2, "version: found 2, this release reads 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_named(case: str, tmp_path: Path):
    value, message = CASES[case]
    write_prepared(tmp_path, **{case: value})
    if case == "items.id":  # of another run than the manifest
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        manifest["digests"]["catalogue"] = "0" * 64
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message) as error:
        prepared = open_prepared(tmp_path)
        prepared.sequences()
        prepared.items  # noqa: B018
    assert str(tmp_path) in str(error.value)


def test_what_is_not_complete_or_was_changed_is_named(root: Path, tmp_path: Path):
    for file in root.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no manifest.json, which is written last"):
        read_data(tmp_path)
    (tmp_path / "manifest.json").write_bytes((root / "manifest.json").read_bytes())
    shard = tmp_path / "interactions-00001-of-00002.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-20])
    with pytest.raises(ValueError, match=r"00001-of-00002.parquet: cannot be read: .*prepare the"):
        read_data(tmp_path)
    with pytest.raises(ValueError, match=r"00001-of-00002.parquet: sha256 .*, the manifest has"):
        read_data(tmp_path, Reading(verify=True))
    shard.unlink()
    with pytest.raises(ValueError, match="shard 1 of 2 is missing; prepare the data again"):
        read_data(tmp_path)


def test_a_clustering_or_embeddings_of_another_catalogue(root: Path, tmp_path: Path):
    write_prepared(tmp_path)
    digest = open_prepared(tmp_path).manifest.catalogue
    np.save(tmp_path / "embeddings.npy", np.ones((ITEMS, 2), np.float32))
    about = tmp_path / "embeddings.json"
    about.write_text(json.dumps({"catalogue": digest}))
    found = read_data(tmp_path)
    assert found.embeddings == {"data": tmp_path / "embeddings.npy"}
    about.write_text(json.dumps({"catalogue": "f" * 64}))
    with pytest.raises(ValueError, match=f"embeddings.npy: was made of another catalogue .* digest"
                       f" {'f' * 64}.*digest {digest}"):  # fmt: skip
        read_data(tmp_path)
    about.unlink()
    ClusteringInfo.from_assignments(np.zeros(9, int)).save(tmp_path / "clustering.npz")
    with pytest.raises(ValueError, match=r"clustering.npz: has 9 items, .* has 10: it is of anoth"):
        read_data(tmp_path)


def test_a_split_without_events_is_left_out_and_told(tmp_path: Path):
    found = read_data(write_prepared(tmp_path, [([1, 2, 3], [0, 0, 2])]))
    assert found.splits.keys() == {"train", "test"}
    assert "valid: has no event; there is nothing to evaluate on" in found.notes
    with pytest.raises(ValueError, match=f"{tmp_path}: train: none of 1 users has two events"):
        read_data(write_prepared(tmp_path, [([1, 2, 3], [1, 1, 2])]))
