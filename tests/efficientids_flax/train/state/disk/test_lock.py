"""One run at a time in a directory."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from efficientids_flax.train.state.disk.lock import NAME, DirectoryInUse, UnusableDirectory, locked
from tests.efficientids_flax.train.networks import batches, begin, trainer

TAKER = """
import fcntl, os, sys, time
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    os._exit(3)
print("held", flush=True)
time.sleep(60 * len(sys.argv[2:]))
"""
HOLDER = """
import fcntl, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
os.write(file, b'{"pid": 7, "host": "there", "since": "noon"}')
print("held", flush=True)
if os.fork() == 0:  # a loader's process, which outlives it
    time.sleep(5)
    os._exit(0)
time.sleep(60)
"""


def test_another_process_holds_it_as_long_as_it_lives(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / NAME)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        made = trainer(tmp_path)
        with pytest.raises(DirectoryInUse, match="process 7 on there is training since noon"):
            made.train(begin(made), batches(), num_steps=1)
        assert not (tmp_path / "1").exists()
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        made.train(begin(made), batches(), num_steps=1)
    assert (tmp_path / "1").exists()


def test_a_run_inside_of_a_run_is_refused(tmp_path):
    first, second = trainer(tmp_path), trainer(tmp_path)
    state = begin(second)
    refused = []

    def source():
        for number, batch in enumerate(batches()):
            if number == 2:
                with pytest.raises(DirectoryInUse, match="this process is training in this dir"):
                    second.train(state, batches(), num_steps=9)
                refused.append(number)
            yield batch

    first.train(begin(first), source, num_steps=4)
    assert refused == [2]
    assert [row["step"] for row in first.history] == [1, 2, 3, 4]


def test_a_directory_that_was_removed_is_locked_anew(tmp_path):
    place = tmp_path / "run"
    with locked(place) as lock:
        assert not lock.renew()
        shutil.rmtree(place)
        assert lock.renew()
        assert not lock.renew()
        command = [sys.executable, "-S", "-c", TAKER, place / NAME]
        assert subprocess.run(command, check=False).returncode == 3
        shutil.move(place, tmp_path / "moved")
        with subprocess.Popen([*command, "hold"], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(DirectoryInUse, match="another process is training"):
                lock.renew()
            other.kill()


def test_it_is_let_go_of_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with locked(tmp_path), pytest.raises(DirectoryInUse), locked(tmp_path / "." / ""):
        pass


def test_a_place_where_no_directory_can_be_is_told(tmp_path):
    (tmp_path / "file").write_text("no directory")
    (tmp_path / "run" / NAME).mkdir(parents=True)
    for place in ("file", "file/run", "run"):
        made = trainer(tmp_path / place)
        with pytest.raises(UnusableDirectory, match=f"{place}: cannot be the directory of a run: "):
            made.train(begin(made), batches(), num_steps=1)
    with pytest.raises(ValueError, match="checkpoint_dir: found '', expected a path"):
        trainer("")
