"""The directory of an output: what may be replaced, free space, and messages of its errors."""

import os
import shutil
from pathlib import Path

import pytest

from converters import ConvertOptions, OutputError, PlanOptions, convert
from converters.write.output import SPARE, Output
from tests.converters import stored, synthetic

PLAN = PlanOptions(optimizer="none")


@pytest.fixture(scope="module")
def shared_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = synthetic.random_params(count=2, rows=6, columns=4)
    return synthetic.write_job(tmp_path_factory.mktemp("small") / "job", params)


@pytest.fixture
def job(shared_job: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared_job, tmp_path / "job"))


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_existing_output_is_kept_unless_told(job: Path, tmp_path: Path):
    out = tmp_path / "out"
    convert(job, out, ConvertOptions(PLAN))
    with pytest.raises(OutputError, match=rf"{out} exists; give --overwrite"):
        convert(job, out, ConvertOptions(PlanOptions(dtype="bfloat16", optimizer="none")))
    first = stored.digests(out)
    convert(
        job, out, ConvertOptions(PlanOptions(dtype="bfloat16", optimizer="none"), overwrite=True)
    )
    assert stored.digests(out) != first
    assert names(tmp_path) == ["job", "out"]


def test_a_failed_overwrite_keeps_the_old_output(job: Path, tmp_path: Path):
    out = tmp_path / "out"
    convert(job, out, ConvertOptions(PLAN))
    first = stored.digests(out)
    (chunk,) = job.glob("checkpoints/*/state/mdl_vars.params.layer0.w/0.0")
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(Exception, match="damaged"):
        convert(job, out, ConvertOptions(PLAN, overwrite=True))
    assert stored.digests(out) == first
    assert names(tmp_path) == ["job", "out"]


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/checkpoint_00000007"])
def test_the_checkpoint_itself_is_never_overwritten(job: Path, inside: str):
    """`--overwrite` with OUT at or above CKPT would remove the checkpoint that is being read."""
    before = sorted(job.rglob("*"))
    with pytest.raises(OutputError, match=r"no manifest\.json: no conversion made it"):
        convert(job, job / inside, ConvertOptions(PLAN, overwrite=True))
    assert sorted(job.rglob("*")) == before


def test_other_peoples_directories_are_never_overwritten(job: Path, tmp_path: Path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"home exists and holds thesis\.tex"):
        convert(job, tmp_path / "home", ConvertOptions(PLAN, overwrite=True))
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"out\.partial exists and holds thesis\.tex"):
        convert(job, tmp_path / "out", ConvertOptions(PLAN))
    assert (tmp_path / "out.partial" / "thesis.tex").exists()


def test_an_empty_directory_may_be_replaced(job: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists"):
        convert(job, tmp_path / "out", ConvertOptions(PLAN))
    convert(job, tmp_path / "out", ConvertOptions(PLAN, overwrite=True))
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_the_output(job: Path, tmp_path: Path, overwrite: bool):
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match=r"out (exists|is a file)"):
        convert(job, tmp_path / "out", ConvertOptions(PLAN, overwrite=overwrite))
    assert (tmp_path / "out").read_text() == "x"


def test_a_file_in_the_way_of_the_output(job: Path, tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"file/out.*: cannot be made"):
        convert(job, tmp_path / "file" / "out", ConvertOptions(PLAN))


def test_directories_above_the_output_are_made(job: Path, tmp_path: Path):
    convert(job, tmp_path / "a" / "b" / "out", ConvertOptions(PLAN))
    assert names(tmp_path / "a" / "b") == ["out"]


def test_no_room(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=SPARE)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(OutputError, match=r"out: about 0\.00 GB are to be written and .* free"):
        convert(job, tmp_path / "out", ConvertOptions(PLAN))
    assert names(tmp_path) == ["job"]


def test_what_an_unfinished_output_takes_counts_as_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise a conversion that ran out of space could not be resumed with just enough of it."""
    usage = shutil.disk_usage(tmp_path)._replace(free=SPARE + 600)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    output = Output(tmp_path / "out", overwrite=False)
    with pytest.raises(OutputError, match="GB free"):
        output.check_space(1000)
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "manifest.json").write_bytes(bytes(400))
    output.check_space(1000)
    with pytest.raises(OutputError, match="GB free"):
        output.check_space(1001)


def test_relative_output(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    report = convert("job", "out", ConvertOptions(PLAN))
    assert report.output == "out"
    assert os.path.isdir("out")  # noqa: PTH112
