"""Files of embeddings: what is read, and the line that is wrong."""

from pathlib import Path

import numpy as np
import pytest

from efficientids_flax.core.vectors import read_vectors


def test_text_and_npy_hold_the_same(tmp_path: Path):
    wanted = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    text = tmp_path / "items.csv"  # the original calls them so
    text.write_text("".join("  ".join(map(repr, row.tolist())) + "\t\n" for row in wanted))
    np.save(tmp_path / "items.npy", wanted.astype(np.float64))
    np.testing.assert_array_equal(read_vectors(text, 5), wanted)
    np.testing.assert_array_equal(read_vectors(tmp_path / "items.npy"), wanted)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2\n3 x\n", "items.txt:2: could not convert string to float: 'x'"),
        ("1 2\n3\n", "items.txt:2: 1 numbers, the lines before have 2"),
        ("1 2\n\n3 4\n", "items.txt:2: is empty; expected an item on each line"),
        ("1 nan\n", "items.txt:1: a number is not finite"),
        ("1 1e39\n", "items.txt:1: a number is not finite in float32"),
        ("1,2\n", "items.txt:1: could not convert string to float: '1,2'"),
        ("", "items.txt: is empty"),
        ("1 2\n3 4\n", "items.txt: has 2 items, expected 3, the catalogue's"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(content: str, message: str, tmp_path: Path):
    file = tmp_path / "items.txt"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_vectors(file, 3)


def test_other_files_are_named(tmp_path: Path):
    np.save(tmp_path / "ids.npy", np.arange(4))
    with pytest.raises(ValueError, match=r"ids.npy: found \[4\] of int64, expected floats"):
        read_vectors(tmp_path / "ids.npy")
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"broken.npy: is no readable .npy file"):
        read_vectors(tmp_path / "broken.npy")
    with pytest.raises(FileNotFoundError, match=r"none.npy: no such file"):
        read_vectors(tmp_path / "none.npy")
    (tmp_path / "items.parquet").touch()
    with pytest.raises(ValueError, match=r"items.parquet: expected .npy, or the original's text"):
        read_vectors(tmp_path / "items.parquet")
