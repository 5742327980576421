"""Outputs appear under their name complete or not at all."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from converters.errors import OutputError
from converters.stores.local import LocalStore
from converters.write import output as output_module
from converters.write.output import COMMIT, Output


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "out"


def begun(out: Path, *, overwrite: bool = False, resume: bool = False) -> Output:
    """An output with one file in it."""
    made = Output(out, overwrite=overwrite)
    made.open(resume=resume)
    made.store.write("manifest.json", b"new")
    return made


def test_nothing_has_the_name_before_it_is_published(out: Path):
    made = begun(out)
    assert not out.exists()
    assert (out.parent / "out.partial" / "manifest.json").read_bytes() == b"new"
    made.publish()
    assert [place.name for place in out.parent.iterdir()] == ["out"]
    assert [place.name for place in out.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("name", ["out/", "./out", "x/../out"])
def test_names_with_detours(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = Output(name, overwrite=False)
    made.open(resume=False)
    made.publish()
    assert [place.name for place in tmp_path.iterdir()] == ["out"]


def test_an_output_that_exists_is_kept(out: Path):
    begun(out).publish()
    with pytest.raises(OutputError, match="out exists; give --overwrite to replace it"):
        Output(out, overwrite=False)


def test_an_output_is_replaced_at_once(out: Path):
    begun(out).publish()
    (out / "old").write_bytes(b"")
    made = begun(out, overwrite=True)
    assert (out / "old").exists()
    made.publish()
    assert [place.name for place in out.parent.iterdir()] == ["out"]
    assert [place.name for place in out.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_never_replaced(out: Path, overwrite: bool):
    out.parent.mkdir()
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"exists|is a file; OUT is a directory"):
        Output(out, overwrite=overwrite)
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["out", "out.partial"])
def test_what_no_conversion_made_is_never_replaced(out: Path, name: str):
    (out.parent / name).mkdir(parents=True)
    (out.parent / name / "thesis.tex").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holds thesis\.tex, but no manifest\.json"):
        Output(out, overwrite=True)


def test_an_output_that_appeared_meanwhile_is_kept(out: Path):
    made = begun(out)
    begun(out.with_name("other")).publish()
    out.with_name("other").rename(out)
    (out / "manifest.json").write_bytes(b"theirs")
    with pytest.raises(OutputError, match="exists"):
        made.publish()
    made.close()
    assert (out / "manifest.json").read_bytes() == b"theirs"


def test_an_unfinished_output_is_gone_on_from_or_removed(out: Path):
    begun(out).close()
    made = Output(out, overwrite=False)
    assert made.open(resume=True)
    assert made.store.read("manifest.json") == b"new"
    made.close()
    made = Output(out, overwrite=False)
    assert not made.open(resume=False)
    assert not made.store.exists("manifest.json")
    made.close()


def test_what_a_killed_writer_left_goes(out: Path):
    begun(out).close()
    place = out.parent / "out.partial"
    (place / "params").mkdir()
    (place / "params" / ".0.0.1a2b.tmp").write_bytes(b"half")
    (place / "params" / "0.1").write_bytes(b"whole")
    made = Output(out, overwrite=False)
    made.open(resume=True)
    assert [file.name for file in (place / "params").iterdir()] == ["0.1"]
    made.close()


def test_two_do_not_write_one_output(out: Path):
    first = begun(out)
    second = Output(out, overwrite=False)
    with pytest.raises(OutputError, match=r"out\.partial is being written by another process"):
        second.open(resume=True)
    assert first.store.read("manifest.json") == b"new"
    first.close()
    assert second.open(resume=True)
    second.close()


def test_a_discarded_output_leaves_nothing(out: Path):
    made = begun(out)
    made.discard()
    assert list(out.parent.iterdir()) == []


def test_a_place_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root, as whom tests may run, is refused nothing
    with pytest.raises(OutputError, match=r"cannot be made: Permission denied"):
        Output(tmp_path / "out", overwrite=False).open(resume=False)


def test_a_place_below_a_file(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be made: "):
        Output(tmp_path / "file" / "out", overwrite=False).open(resume=False)


def test_room_on_the_disk_is_checked(out: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")._replace(free=2_000_000_000)
    seen: list[Path] = []
    monkeypatch.setattr(
        output_module.shutil, "disk_usage", lambda place: seen.append(place) or usage
    )
    made = Output(out, overwrite=False)
    made.check_space(1_900_000_000)
    assert seen == [out.parent.parent]
    with pytest.raises(OutputError, match=r"about 1\.95 GB are to be written .* has 2\.00 GB free"):
        made.check_space(1_950_000_000)


def test_what_an_unfinished_output_takes_is_room(out: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")._replace(free=output_module.SPARE)
    monkeypatch.setattr(output_module.shutil, "disk_usage", lambda place: usage)
    made = begun(out)
    made.check_space(3)
    with pytest.raises(OutputError, match="make room"):
        made.check_space(4)
    made.close()


# Object stores, which cannot rename.


class Bucket(LocalStore):
    """A store that claims to be an object store."""

    is_object_store = True

    def local_path(self, key: str = "") -> None:  # type: ignore[override]
        del key


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    store = Bucket(tmp_path / "bucket")
    store.url = "gs://bucket/out"
    monkeypatch.setattr(output_module, "open_store", lambda url: store)
    return store


def test_on_an_object_store_the_output_exists_once_it_is_committed(bucket: Bucket):
    made = Output("gs://bucket/out", overwrite=False)
    assert not made.open(resume=False)
    made.store.write("manifest.json", b"new")
    assert not made.exists()
    Output("gs://bucket/out", overwrite=False)
    made.publish()
    assert bucket.keys() == [COMMIT, "manifest.json"]
    with pytest.raises(OutputError, match="gs://bucket/out exists"):
        Output("gs://bucket/out", overwrite=False)


def test_on_an_object_store_an_output_loses_its_mark_before_all_else(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    for key in ("a", COMMIT, "manifest.json"):
        bucket.write(key, b"")
    deleted: list[str] = []
    monkeypatch.setattr(bucket, "delete", deleted.append)
    Output("gs://bucket/out", overwrite=True).open(resume=True)
    assert deleted == [COMMIT, ""]


def test_on_an_object_store_an_unfinished_output_is_gone_on_from(bucket: Bucket):
    bucket.write("_journal/plan.json", b"")
    assert Output("gs://bucket/out", overwrite=False).open(resume=True)
    assert bucket.keys() == ["_journal/plan.json"]
    assert not Output("gs://bucket/out", overwrite=False).open(resume=False)
    assert bucket.keys() == []
