"""What is there of a file while it is written, and when that fails."""

import resource
from pathlib import Path

import pytest
from etils import epath

from efficientids_flax.whole_files import write_whole


def test_it_is_there_and_nothing_else(tmp_path):
    for text in ("first", "zweite Fassung: ü"):
        write_whole(tmp_path / "config.json", text)
        assert (tmp_path / "config.json").read_text(encoding="utf-8") == text
    write_whole(tmp_path / "config.json", b"\x00\xff")
    assert (tmp_path / "config.json").read_bytes() == b"\x00\xff"
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_name_may_be_as_long_as_names_are(tmp_path):
    write_whole(tmp_path / ("x" * 255), "text")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


@pytest.mark.parametrize("fails", ["write_bytes", "replace"])
def test_what_was_there_stays_if_it_fails(tmp_path, monkeypatch, fails):
    """Also after an interrupt, which is no OSError."""
    write_whole(tmp_path / "a", "before")
    place = type(epath.Path(tmp_path))

    def interrupted(*_given, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, fails, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", "after")
    monkeypatch.undo()
    assert (tmp_path / "a").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(Path(tmp_path) / "nowhere" / "a", "text")
    assert "nowhere" in str(caught.value)


def test_a_disk_that_is_full_is_told_with_the_file(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write_whole(tmp_path / "a", "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.filename == str(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
