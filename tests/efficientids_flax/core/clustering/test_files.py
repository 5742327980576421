"""Clusterings in .npz and .safetensors files: there and back, never half there, never a pickle."""

import random
import struct
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings

from efficientids_flax.core.clustering.tables import ClusteringError, ClusteringInfo
from tests.efficientids_flax.core.clustering.clustering_cases import (
    TABLES,
    assert_same,
    canonical,
    clusterings,
    tables,
)
from tests.paths import DATA

CLUSTERINGS = DATA / "clustering"


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
@given(good=clusterings())
@settings(max_examples=50, deadline=None)
def test_any_clustering_comes_back_from_files(tmp_path_factory, suffix, good):
    path = tmp_path_factory.mktemp("any") / f"clustering{suffix}"
    ClusteringInfo(**good).save(path)
    assert_same(ClusteringInfo.from_file(path), canonical(good))
    assert list(path.parent.iterdir()) == [path]


def test_the_npz_opens_with_numpy_alone(tmp_path):
    ClusteringInfo(**tables()).save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz", allow_pickle=False) as archive:
        assert set(archive) == {"cluster_of", "members", "slot_of", "schema_version"}
        np.testing.assert_array_equal(archive["members"], TABLES["members"])


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
def test_a_file_says_whose_items_they_are(tmp_path, suffix):
    path, good = tmp_path / f"c{suffix}", tables()
    plain = ClusteringInfo(**good)
    ClusteringInfo(**good, catalogue="ab12").save(path)
    found = ClusteringInfo.from_file(path)
    assert found.catalogue == "ab12"
    assert found.digest() == plain.digest()  # of the tables alone
    plain.save(path, overwrite=True)
    assert ClusteringInfo.from_file(path).catalogue is None


def test_a_catalogue_that_is_no_text_is_told(tmp_path):
    np.savez(tmp_path / "c.npz", **tables(), catalogue=np.arange(3))
    with pytest.raises(ClusteringError, match=r"catalogue is \[3\] of int64, expected one text"):
        ClusteringInfo.from_file(tmp_path / "c.npz")


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
def test_an_existing_file_is_kept_unless_asked(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    path.write_bytes(b"mine")
    clustering = ClusteringInfo(**tables())
    with pytest.raises(FileExistsError, match="exists already"):
        clustering.save(path)
    assert path.read_bytes() == b"mine"
    clustering.save(path, overwrite=True)
    assert_same(ClusteringInfo.from_file(path), canonical({**tables(), "means": None}))


@pytest.mark.parametrize("overwrite", (False, True))
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, overwrite):
    path = tmp_path / "c.npz"
    if overwrite:
        path.write_bytes(b"mine")

    def no_space(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match=r"c\.npz: cannot be written \(No space left on device\)"):
        ClusteringInfo(**tables()).save(path, overwrite=overwrite)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([b"mine"] if overwrite else [])


def test_a_file_made_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    monkeypatch.setattr("os.fsync", lambda _descriptor: path.write_bytes(b"theirs"))
    with pytest.raises(FileExistsError, match="another process"):
        ClusteringInfo(**tables()).save(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"theirs"]


def test_where_nothing_can_be_written(tmp_path):
    clustering = ClusteringInfo(**tables())
    with pytest.raises(FileNotFoundError, match="absent: no such directory"):
        clustering.save(tmp_path / "absent" / "c.npz")
    (tmp_path / "c.npz").mkdir()
    with pytest.raises(IsADirectoryError, match="is a directory"):
        clustering.save(tmp_path / "c.npz", overwrite=True)
    with pytest.raises(ValueError, match=r"ends in \.pkl, expected one of \.npz, \.safetensors"):
        clustering.save(tmp_path / "c.pkl")


def test_files_that_hold_no_clustering(tmp_path):
    with pytest.raises(ClusteringError, match="no such file"):
        ClusteringInfo.from_file(tmp_path / "absent.npz")
    with pytest.raises(ClusteringError, match=r"c\.pkl: .*convert-clustering makes one"):
        ClusteringInfo.from_file(tmp_path / "c.pkl")
    np.savez(tmp_path / "other.npz", members=np.zeros((1, 1), int), weights=np.ones(2))
    with pytest.raises(ClusteringError, match=r"holds \['members', 'weights'\], expected \['clus"):
        ClusteringInfo.from_file(tmp_path / "other.npz")
    np.savez(tmp_path / "later.npz", **tables(), schema_version=2)
    with pytest.raises(ClusteringError, match="schema version 2, this release reads 1"):
        ClusteringInfo.from_file(tmp_path / "later.npz")
    np.savez(tmp_path / "wrong.npz", **tables(slot_of=[1, 0, 2, 2, 0, 0]))
    with pytest.raises(ClusteringError, match=r"wrong\.npz: (.|\n)*item 3 should be"):
        ClusteringInfo.from_file(tmp_path / "wrong.npz")


def test_no_pickle_is_read_from_an_npz(tmp_path):
    objects = {name: table.astype(object) for name, table in tables().items()}
    np.savez(tmp_path / "c.npz", **objects)
    with pytest.raises(ClusteringError, match=r"not a readable \.npz file of numbers"):
        ClusteringInfo.from_file(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes((CLUSTERINGS / "a_hier_output_dnn.pkl").read_bytes())
    with pytest.raises(ClusteringError, match=r"not a readable \.npz file of numbers"):
        ClusteringInfo.from_file(tmp_path / "d.npz")


@pytest.mark.parametrize(
    "header",
    (
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1000000000000000,)}",  # 4 PB
        "{'descr': '<i4', 'fortran_order': False, 'shape': (6,)",  # not closed
        "{'descr': '<i4', 'fortran_order': False, 'shape': (06,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (6L,)}",  # Python 2's: NumPy warns
        "{'descr': 'a4', 'fortran_order': False, 'shape': (6,)}",  # deprecated: NumPy warns
        "{'descr': '|O', 'fortran_order': False, 'shape': (6,)}",
    ),
)
def test_odd_npy_headers_are_refused(tmp_path, header):
    path = tmp_path / "c.npz"
    text = header.ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(24)
        archive.writestr("cluster_of.npy", content)
    with pytest.raises(ClusteringError, match=r"c\.npz: is not a readable \.npz file"):
        ClusteringInfo.from_file(path)


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
def test_damaged_files_give_tables_or_a_clustering_error(tmp_path, suffix):
    path = tmp_path / f"c{suffix}"
    ClusteringInfo(**tables(means=[[1.0, 2.0]] * 3)).save(path)
    content = path.read_bytes()
    chance = random.Random(0)
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= chance.randrange(1, 256)
        path.write_bytes(damaged[: None if position % 2 else chance.randrange(len(content))])
        try:
            ClusteringInfo.from_file(path)
        except ClusteringError as error:
            assert str(path) in str(error)


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    clustering = ClusteringInfo(**tables())
    clustering.save(tmp_path / "c.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install 'efficientids-flax\[safetensors\]'"):
        ClusteringInfo.from_file(tmp_path / "c.safetensors")
    with pytest.raises(ImportError, match=r"pip install 'efficientids-flax\[safetensors\]'"):
        clustering.save(tmp_path / "d.safetensors")
    assert not (tmp_path / "d.safetensors").exists()
