"""Killed at any moment, an output is absent or complete, and `--resume` continues it."""

import contextlib
import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from converters import ConvertOptions, OutputError, PlanOptions, convert
from tests import running
from tests.converters import stored, synthetic

LEAST_KILLS = 5  # that a conversion has to survive for the test to say something
OPTIONS = PlanOptions(overrides={"beta1": 0.9, "beta2": 0.99})


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of 60 MB in 50 leaves."""
    params = synthetic.random_params(count=16, rows=320, columns=1000)
    return synthetic.write_job(tmp_path_factory.mktemp("killed") / "job", params)


def command(job: Path, out: Path, *options: str) -> list[str]:
    return synthetic.command(job, out, *synthetic.ADAM, "--quiet", *options)


def journal(out: Path) -> dict[str, int]:
    """File of an unfinished output's journal -> when it was written."""
    place = out.with_name(f"{out.name}.partial") / "_journal"
    found: dict[str, int] = {}
    for file in place.glob("job-*.json"):
        with contextlib.suppress(FileNotFoundError):  # the conversion may end at this moment
            found[file.name] = file.stat().st_mtime_ns
    return found


def finished_files(out: Path) -> dict[Path, int]:
    """Files of the leaves that the journal says are finished -> when they were written."""
    partial = out.with_name(f"{out.name}.partial")
    found: dict[Path, int] = {}
    for entry in partial.glob("_journal/job-*.json"):
        for record in json.loads(entry.read_text()):
            item, _, rest = record["target"].partition("/")
            for file in (partial / item / rest.replace("/", ".")).iterdir():
                found[file.relative_to(partial)] = file.stat().st_mtime_ns
    return found


def killed_run(job: Path, out: Path, leaves: int, seconds: float, *options: str) -> bool:
    """Start a conversion and kill it `seconds` after it has finished this many leaves more.

    Returns:
        Whether it was killed in time.
    """
    wanted = len(journal(out)) + leaves
    with running.running(command(job, out, *options), env=synthetic.environment()) as process:
        while process.poll() is None and len(journal(out)) < wanted:
            assert not out.exists() or (out / "manifest.json").exists()
            time.sleep(0.001)  # a core that it may need
        time.sleep(seconds)
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("to", ["orbax", "safetensors"])
def test_killed_again_and_again_then_resumed(job: Path, tmp_path: Path, to: str):
    options = ConvertOptions(OPTIONS, to=to)
    convert(job, tmp_path / "whole", options)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    generator = random.Random(to)
    kills, kept = 0, 0
    while not out.exists():
        begun = (partial / "_journal" / "plan.json").exists()
        files = finished_files(out) if to == "orbax" and begun else {}
        entries = journal(out) if begun else {}
        moment = (generator.randint(1, 9), generator.uniform(0.0, 0.03))
        killed = killed_run(job, out, *moment, "--to", to, "--workers", "1", "--resume")
        if not killed or out.exists():
            break
        kills += 1
        ended = (partial / "manifest.json").exists()  # then the journal is being removed
        assert ended or journal(out).items() >= entries.items()  # no leaf is written again
        assert {f: (partial / f).stat().st_mtime_ns for f in files} == files
        kept = max(kept, len(journal(out)))
    assert kills >= LEAST_KILLS
    assert kept > 0
    if not out.exists():  # the run that was not killed in time failed
        last = synthetic.run(job, out, *synthetic.ADAM, "--quiet", "--to", to, "--resume")
        assert (last.returncode, last.stderr) == (0, "")
    assert stored.digests(out) == stored.digests(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "whole"]
    names = ["_lock", "_journal"]
    assert not [p for p in out.rglob("*") if p.name in names or p.suffix == ".tmp"]
    for file in (tmp_path / "whole").rglob("*"):
        if file.is_file() and file.name not in ("manifest.json", "_CHECKPOINT_METADATA"):
            assert file.read_bytes() == (out / file.relative_to(tmp_path / "whole")).read_bytes()


def test_resume_without_anything_to_go_on_from_converts(job: Path, tmp_path: Path):
    convert(job, tmp_path / "out", ConvertOptions(OPTIONS, resume=True))
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.fixture(scope="module")
def unfinished(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unfinished output with some finished leaves."""
    out = tmp_path_factory.mktemp("unfinished") / "out"
    assert killed_run(job, out, 5, 0.0, "--workers", "1")
    return out.with_name("out.partial")


def copied(unfinished: Path, tmp_path: Path) -> Path:
    shutil.copytree(unfinished, tmp_path / "out.partial")
    return tmp_path / "out"


def test_resume_with_other_options_is_refused(job: Path, unfinished: Path, tmp_path: Path):
    out = copied(unfinished, tmp_path)
    other = PlanOptions(overrides={"beta1": 0.5, "beta2": 0.99})
    with pytest.raises(OutputError, match=r"other options; convert without --resume"):
        convert(job, out, ConvertOptions(other, resume=True))
    assert not out.exists()
    convert(job, out, ConvertOptions(OPTIONS, resume=True))  # and the lock is free again


def test_without_resume_an_unfinished_output_is_started_over(
    job: Path, unfinished: Path, tmp_path: Path
):
    out = copied(unfinished, tmp_path)
    stale = tmp_path / "out.partial" / "params" / "stale"
    stale.mkdir()
    convert(job, out, ConvertOptions(OPTIONS))
    assert not (out / "params" / "stale").exists()


def test_leftovers_without_a_journal_are_not_gone_on_from(
    job: Path, unfinished: Path, tmp_path: Path
):
    out = copied(unfinished, tmp_path)
    shutil.rmtree(tmp_path / "out.partial" / "_journal")
    convert(job, out, ConvertOptions(PlanOptions(optimizer="none"), resume=True))
    assert {p.name for p in (out / "state").iterdir() if not p.name.startswith(("_", "c"))} == {
        "step"
    }


def test_two_conversions_into_one_output_at_once(job: Path, unfinished: Path, tmp_path: Path):
    import fcntl

    out = copied(unfinished, tmp_path)
    with (tmp_path / "out.partial" / "_lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as the first conversion holds it
        second = synthetic.run(job, out, *synthetic.ADAM)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"Error: {out}.partial is being written by another process;")
    assert (tmp_path / "out.partial" / "_journal").exists()  # nothing of the first is touched
    assert not out.exists()


def test_interrupted_by_ctrl_c(job: Path, tmp_path: Path):
    out = tmp_path / "out"
    for _ in range(30):  # a conversion may be done before the signal arrives
        asked = command(job, out, "--workers", "1")
        with running.running(asked, env=synthetic.environment()) as process:
            while process.poll() is None and not (tmp_path / "out.partial" / "params").exists():
                time.sleep(0.001)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=running.PATIENCE)
        if process.returncode != 0:
            break
        shutil.rmtree(out)
    assert (process.returncode, errors.strip()) == (1, b"Aborted!")
    assert not out.exists()
    again = synthetic.run(job, out, *synthetic.ADAM, "--resume")
    assert again.returncode == 0, again.stderr
