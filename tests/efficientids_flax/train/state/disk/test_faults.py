"""Checkpoints that cannot be read or written: a line, and nothing else is lost."""

import asyncio
import gc
import logging
import resource
import shutil
import sys
from pathlib import Path

import pytest

from efficientids_flax.train.logs import Recorder
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state.disk.checkpoint import Checkpoints
from efficientids_flax.train.state.disk.faults import DamagedCheckpoint, reading
from tests import running
from tests.efficientids_flax.train.networks import batches, begin, same, trainer


def cut(step):
    """Every file of numbers to its half, as a disk that was full leaves it."""
    files = [path for path in (step / "state").rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(step):
    shutil.rmtree(step)
    step.mkdir()


def without_shapes(step):
    for path in step.rglob("_METADATA"):
        path.unlink()


def of_another_step(step):
    """As somebody copied an older one."""
    shutil.rmtree(step)
    shutil.copytree(step.with_name("2"), step)


def without_place(step):
    (step / "run" / "metadata").write_text("{")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """(directory with steps 2 and 4, a trainer, its state at 6)."""
    directory = tmp_path_factory.mktemp("ended")
    made = trainer(directory, save_every=2)
    made.train(begin(made), batches(), num_steps=4)
    whole = trainer()
    return directory, made, whole.train(begin(whole), batches(), num_steps=6)


@pytest.mark.parametrize("damage", [cut, emptied, without_shapes, without_place, of_another_step])
def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_goes_on(
    ended, tmp_path, caplog, capfd, damage
):
    directory, made, want = ended
    made.directory, made._cursor = shutil.copytree(directory, tmp_path / "run"), None
    damage(made.directory / "4")
    assert int(made.restore(begin(made)).step) == 2
    assert same(made.train(begin(made), batches(), num_steps=6), want)
    assert "run/4: damaged, cannot be read" in caplog.text
    assert "going back to the checkpoint of step 2" in caplog.text
    assert ("its name is to be 2" in caplog.text) == (damage is of_another_step)
    assert (made.directory / "damaged_4").is_dir()
    assert {"4", "6"} <= {path.name for path in made.directory.iterdir()}
    assert "Traceback" not in capfd.readouterr().err
    assert [row["step"] for row in made.history] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]"])
def test_damaged_metrics_are_said_and_their_checkpoint_goes_on(ended, tmp_path, content):
    directory, made, want = ended
    made.directory, made._cursor = shutil.copytree(directory, tmp_path / "run"), None
    (made.directory / "4" / "metrics" / "metrics").write_bytes(content)
    with pytest.warns(UserWarning, match="run/4/metrics: damaged, cannot be read"):
        assert same(made.train(begin(made), batches(), num_steps=6), want)
    assert not (made.directory / "damaged_4").exists()


def test_parameters_of_a_damaged_checkpoint_name_it(ended, tmp_path):
    copy = shutil.copytree(ended[0], tmp_path / "run")
    shutil.rmtree(copy / "4" / "state")
    checkpoints = Checkpoints(copy, read_only=True)
    with pytest.raises(DamagedCheckpoint, match=r"run/4: damaged.*_METADATA"):
        checkpoints.restore_params(4)
    checkpoints.close()


def test_a_checkpoint_that_its_run_removes_meanwhile_is_not_called_damaged(tmp_path):
    gone = tmp_path / "6"
    with pytest.raises(DamagedCheckpoint, match="was removed while it was read"), reading(gone):
        (gone / "state" / "_METADATA").stat()


def test_nothing_begins_anew_where_all_are_damaged(ended, tmp_path):
    directory, made, _ = ended
    made.directory, made._cursor = shutil.copytree(directory, tmp_path / "run"), None
    for step in ("2", "4"):
        emptied(made.directory / step)
    with pytest.raises(DamagedCheckpoint, match=r"run/4: damaged.*run/2: damaged"):
        made.train(begin(made), batches(), num_steps=6)
    with pytest.raises(DamagedCheckpoint, match="run/2: damaged"):
        made.restore(begin(made), 2)
    assert {"2", "4"} <= {path.name for path in made.directory.iterdir()}


def test_a_failed_write_ends_the_run_at_once(ended, tmp_path):
    script = Path(__file__).with_name("full_disk_run.py")
    (end,) = running.together([[sys.executable, script, tmp_path]])
    assert end.returncode == 0, end.stderr[-3000:]
    assert end.stderr == ""  # no page of anybody's
    steps, error, export = end.stdout.splitlines()
    assert export.startswith(f"{tmp_path}/out/params: cannot be written: ")
    assert "File too large" in export
    assert int(steps) < 12  # not at the next save only, of a run of 500
    assert error.startswith(f"{tmp_path}: a checkpoint could not be written: ")
    assert "File too large" in error
    assert "the newest whole one is step 4" in error
    _, made, _ = ended
    made.directory = tmp_path
    assert int(made.restore(begin(made)).step) == 4


def test_logs_that_cannot_be_written_name_their_place(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(TrainingOptions(progress="none", tensorboard=False), tmp_path, 0, 9)
    recorder.steps(1, ["loss"], [[1.0]] * 100)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        with pytest.raises(OSError, match=f"logs of the run cannot be written.*{tmp_path}"):
            recorder.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    recorder.close()


def test_a_directory_that_nobody_closes_ends_with_its_object(tmp_path):
    gc.collect()
    policy, filters = asyncio.get_event_loop_policy(), list(logging.getLogger("absl").filters)
    Checkpoints(tmp_path / "left", asynchronous=False)
    gc.collect()
    assert asyncio.get_event_loop_policy() is policy
    assert logging.getLogger("absl").filters == filters


def test_event_loops_of_others_stay_as_they_are(tmp_path):
    """While a directory is open, and afterwards, in whatever order directories are closed."""
    gc.collect()  # directories that earlier tests left open, in runs that ended in an error
    before, policy = asyncio.new_event_loop(), asyncio.get_event_loop_policy()
    first, second = Checkpoints(tmp_path / "a"), Checkpoints(tmp_path / "b")
    assert asyncio.run(asyncio.sleep(0, "done")) == "done"
    first.close()
    within = asyncio.new_event_loop()
    second.close()
    assert asyncio.get_event_loop_policy() is policy
    after = asyncio.new_event_loop()
    for loop in (before, within, after):
        loop.close()
    for loop in (before, after):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.call_soon_threadsafe(print)
    assert within.call_soon_threadsafe(print) is None
