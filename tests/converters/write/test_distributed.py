"""A conversion shared by two real processes on the loopback interface."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from converters.commands.convert import convert
from converters.paxml.checkpoint import open_checkpoint
from converters.plan import PlanOptions, make_plan
from converters.plan.leaves import Plan
from converters.stores.local import LocalStore
from converters.write.execute import tile_limit
from converters.write.jobs import make_jobs, share
from converters.write.journal import Journal
from tests import running
from tests.converters import stored, synthetic
from tests.converters.invoking import converted, invoke


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = synthetic.random_params(count=6, rows=256, columns=128)  # each a job of its own
    return synthetic.write_job(tmp_path_factory.mktemp("shared") / "job", params)


@pytest.fixture(scope="module")
def alone(job: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a single process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    converted(job, out, *synthetic.ADAM)
    return out


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(commands: list[list[str | Path]]) -> list[subprocess.CompletedProcess[str]]:
    """Run one command per process, all at once."""
    launcher = ["--distributed", "--coordinator", f"127.0.0.1:{free_port()}"]
    launcher += ["--processes", str(len(commands)), "--process"]
    return running.together(
        [synthetic.command(*c, *launcher, str(index)) for index, c in enumerate(commands)],
        env=synthetic.environment(),
    )


@pytest.mark.parametrize("to", ["orbax", "safetensors"])
def test_two_processes_write_what_one_does(job: Path, alone: Path, tmp_path: Path, to: str):
    out = tmp_path / "out"
    first, second = together([[job, out, *synthetic.ADAM, "--to", to]] * 2)
    assert (first.returncode, second.returncode) == (0, 0), (first.stderr, second.stderr)
    assert "leaves read back and compared" in first.stdout
    assert second.stdout == ""  # the primary alone reports
    assert stored.digests(out) == stored.digests(alone)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    if to == "orbax":
        for file in alone.rglob("0*"):
            assert (out / file.relative_to(alone)).read_bytes() == file.read_bytes()


def plan_of(job: Path) -> Plan:
    return make_plan(open_checkpoint(job), PlanOptions(overrides={"beta1": 0.9, "beta2": 0.99}))


def test_shares_are_even_and_leave_nothing_out(job: Path):
    plan = plan_of(job)
    jobs = make_jobs(plan.leaves)
    parts = [share(jobs, index, 3) for index in range(3)]
    targets = [leaf.target for part in parts for job in part for leaf in job.leaves]
    assert sorted(targets) == sorted(leaf.target for leaf in plan.leaves)
    sizes = [sum(job.nbytes for job in part) for part in parts]
    assert max(sizes) <= 1.25 * min(sizes)


def test_failure_while_writing_ends_both(job: Path, tmp_path: Path):
    broken = Path(shutil.copytree(job, tmp_path / "broken"))
    (chunk,) = broken.glob("checkpoints/*/state/mdl_vars.params.layer1.w/0.0")
    chunk.write_bytes(chunk.read_bytes()[:-3])
    ends = together([[broken, tmp_path / "out", *synthetic.ADAM]] * 2)
    assert [end.returncode for end in ends] == [1, 1]
    errors = [end.stderr for end in ends]
    assert all("mdl_vars/params/layer1/w: chunk 0.0" in text for text in errors)
    assert sum("Error: process" in text for text in errors) == 1
    assert "Traceback" not in "".join(errors)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [0, 1])
def test_failure_of_one_before_it_writes_ends_both(job: Path, tmp_path: Path, wrong: int):
    commands: list[list[str | Path]] = [[job, tmp_path / "out", *synthetic.ADAM] for _ in range(2)]
    commands[wrong][0] = tmp_path / "missing"
    ends = together(commands)
    assert [end.returncode for end in ends] == [1, 1]
    assert "missing: no checkpoint found" in ends[wrong].stderr
    assert f"process {wrong} failed: {tmp_path}/missing: no" in ends[1 - wrong].stderr
    assert list(tmp_path.iterdir()) == []


def test_processes_with_other_options_do_not_mix(job: Path, tmp_path: Path):
    commands: list[list[str | Path]] = [
        [job, tmp_path / "out", *synthetic.ADAM],
        [job, tmp_path / "out", "--no-optimizer"],
    ]
    ends = together(commands)
    assert [end.returncode for end in ends] == [1, 1]
    assert not (tmp_path / "out").exists()


def test_each_process_goes_on_with_its_share(job: Path, alone: Path, tmp_path: Path):
    """Finished leaves are not written again, whoever wrote them; both processes do the rest."""
    out, partial = tmp_path / "out", Path(shutil.copytree(alone, tmp_path / "out.partial"))
    workers, memory = 2, 1 << 30
    journal = Journal(LocalStore(partial))
    journal.begin(plan_of(job).fingerprint(tile_limit(memory, workers)))
    records = stored.read_manifest(partial)["leaves"]
    (partial / "manifest.json").unlink()
    for record in records[::2]:
        record |= {"finished before": True, "verified": True}  # so that it is known again
        journal.add([record])
    for record in records[1::2]:
        item, _, rest = record["target"].partition("/")
        shutil.rmtree(partial / item / rest.replace("/", "."))

    ends = together([[job, out, *synthetic.ADAM, "--resume", "--workers", str(workers)]] * 2)
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr
    assert stored.digests(out) == stored.digests(alone)
    leaves = stored.read_manifest(out)["leaves"]
    kept = [leaf["target"] for leaf in leaves if "finished before" in leaf]
    assert kept == [record["target"] for record in records[::2]]


def test_a_process_that_finds_no_other_says_so(job: Path, tmp_path: Path):
    arguments = ["--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2"]
    end = synthetic.run(job, tmp_path / "out", *arguments, "--process", "5")
    assert end.returncode == 1
    assert "the processes cannot join" in end.stderr
    assert "Traceback" not in end.stderr


def test_options_of_the_launcher_want_distributed(job: Path, tmp_path: Path):
    end = invoke(convert, job, tmp_path / "out", "--processes", "2")
    assert end.exit_code == 2
    assert "--processes goes with --distributed" in end.stderr
