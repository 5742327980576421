"""Checkpoints that cannot be read or written: a line, and nothing else is lost."""

import gc
import resource
import shutil
import time

import pytest

from efficientids_flax.train.state.faults import (
    DamagedCheckpoint,
    UnwrittenCheckpoint,
    in_a_line,
)
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


@pytest.mark.parametrize("damage", [cut, emptied, without_shapes, without_place])
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
    assert (made.directory / "damaged_4").is_dir()
    assert {"4", "6"} <= {path.name for path in made.directory.iterdir()}
    assert "Traceback" not in capfd.readouterr().err
    assert [row["step"] for row in made.history] == [1, 2, 3, 4, 5, 6]


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_failed_write_ends_the_run_at_once(tmp_path, capfd):
    """Files that may not grow stand for a full disk; the write fails in the background."""
    made = trainer(tmp_path, save_every=2, log_every=1, tensorboard=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    read = []

    def source():
        for number, batch in enumerate(batches()):
            if number == 3:
                while not (tmp_path / "2").is_dir():  # it is written in the background
                    time.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            if number > 3:
                time.sleep(0.05)
            read.append(number)
            yield batch

    try:
        with pytest.raises((UnwrittenCheckpoint, OSError)) as error:
            made.train(begin(made), source, num_steps=500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(read) < 100
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "File too large" in str(error.value)
    assert "Traceback" not in capfd.readouterr().err
    assert int(made.restore(begin(made)).step) == 2
    gc.collect()  # Orbax leaves coroutines that nobody awaits, of which Python warns


def test_pages_become_a_line():
    page = "OUT_OF_RANGE: Error writing file: Disk quota exceeded [source locations='a\nb']\nmore"
    assert in_a_line(ValueError(page)) == "OUT_OF_RANGE: Error writing file: Disk quota exceeded"
    line = in_a_line(ValueError("what " + "x" * 999 + " No space left on device"))
    assert line.startswith("what")
    assert line.endswith("No space left on device")
    assert len(line) < 300
