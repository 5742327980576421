"""Executing a plan: crashes at each step, failures, and what is left behind."""

import errno
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import ConvertOptions, OutputError, PlanOptions, convert
from converters.errors import CheckpointError, VerificationError
from converters.stores.local import LocalStore
from converters.write.execute import default_workers, tile_limit
from converters.write.formats.orbax import OrbaxSink
from converters.write.output import Output
from tests.converters import stored, synthetic

PLAN = PlanOptions(overrides={"beta1": 0.9, "beta2": 0.99})


class CrashError(BaseException):
    """Stands for the death of the process: nothing may be cleaned up after it."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of a few kilobytes."""
    params = synthetic.random_params(count=2, rows=6, columns=4)
    return synthetic.write_job(tmp_path_factory.mktemp("small") / "job", params)


@contextmanager
def crash_at(step: int) -> Iterator[Callable[[], int]]:
    """Raise before the `step`-th change of the file system; returns the number of changes."""
    count = 0
    lock = threading.Lock()

    def counted(action: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            with lock:
                count += 1
                gone = count >= step
            if gone:
                raise CrashError
            return action(*args, **kwargs)

        return wrapper

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "write_blocks", counted(LocalStore.write_blocks))
        patch.setattr(LocalStore, "delete", counted(LocalStore.delete))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "mkdir", counted(Path.mkdir))
        yield lambda: count


@pytest.mark.parametrize("before", ["nothing", "another output"])
def test_crash_at_each_step_leaves_nothing_or_the_whole(job: Path, tmp_path: Path, before: str):
    convert(job, tmp_path / "wanted", PLAN_ONLY)
    wanted = stored.digests(tmp_path / "wanted")
    convert(job, tmp_path / "older", ConvertOptions(PlanOptions(optimizer="none")))
    older = stored.digests(tmp_path / "older")
    options = ConvertOptions(PLAN, workers=1, overwrite=before != "nothing")
    with crash_at(1 << 30) as changes:
        convert(job, tmp_path / "counted", options)
    steps = changes()
    assert steps > 20
    for step in range(1, steps + 1):
        out = tmp_path / f"out{step}"
        if before != "nothing":
            shutil.copytree(tmp_path / "older", out)
        with crash_at(step), pytest.raises(CrashError):
            convert(job, out, options)
            raise CrashError  # the last steps clean up after the output has its name
        if out.exists():
            assert stored.digests(out) in (wanted, older), step
        again = ConvertOptions(PLAN, workers=1, resume=True, overwrite=True)
        convert(job, out, again)
        assert stored.digests(out) == wanted, step
        assert not out.with_name(f"{out.name}.partial").exists()


PLAN_ONLY = ConvertOptions(PLAN)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_told_and_can_be_resumed(
    job: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
):
    left = 10  # chunks that still fit
    original = LocalStore.write_blocks.__globals__["write_all"]

    def write_all(file: Any, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        original(file, data)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("converters.stores.local.write_all", write_all)
        with pytest.raises(OutputError, match=r"no space left on the disk .*--resume") as told:
            convert(job, out, ConvertOptions(PLAN, workers=1))
    assert str(out) in str(told.value)
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial"]
    assert not list((tmp_path / "out.partial").rglob("*.tmp"))
    convert(job, out, ConvertOptions(PLAN, resume=True))
    convert(job, tmp_path / "wanted", PLAN_ONLY)
    assert stored.digests(out) == stored.digests(tmp_path / "wanted")


def test_full_disk_while_writing_safetensors(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    left = 4
    original = os.pwrite

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(handle, data, offset)

    options = ConvertOptions(PLAN, to="safetensors", workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OutputError, match="no space left on the disk"):
            convert(job, tmp_path / "out", options)
    assert [p.name for p in tmp_path.iterdir()] == ["out.partial"]
    resumed = ConvertOptions(PLAN, to="safetensors", workers=1, resume=True)
    convert(job, tmp_path / "out", resumed)
    convert(job, tmp_path / "wanted", PLAN_ONLY)
    assert stored.digests(tmp_path / "out") == stored.digests(tmp_path / "wanted")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    known = shutil.which("mount") is not None
    if not known or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems may not be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_really_full_disk(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params = synthetic.random_params(count=8, rows=200, columns=200)
    job = synthetic.write_job(tmp_path / "job", params)
    out = small_disk / "out"
    with pytest.raises(OutputError, match=r"GB are to be written and .* free"):
        convert(job, out, PLAN_ONLY)
    assert list(small_disk.iterdir()) == []
    monkeypatch.setattr(
        Output, "check_space", lambda self, nbytes: None
    )  # others fill it meanwhile
    with pytest.raises(OutputError, match=r"no space left on the disk .*--resume"):
        convert(job, out, PLAN_ONLY)
    assert [p.name for p in small_disk.iterdir()] == ["out.partial"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    convert(job, out, ConvertOptions(PLAN, resume=True))
    convert(job, tmp_path / "wanted", PLAN_ONLY)
    assert stored.digests(out) == stored.digests(tmp_path / "wanted")


def test_limit_on_the_size_of_files(tmp_path: Path):
    """Another error of the system: the command names it, and leaves no output."""
    params = synthetic.random_params(count=2, rows=200, columns=200)
    job = synthetic.write_job(tmp_path / "job", params)
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    command = synthetic.command(job, tmp_path / "out", *synthetic.ADAM)
    command[4] = script + command[4]
    end = subprocess.run(
        command, env=synthetic.environment(), capture_output=True, text=True, check=False
    )
    assert end.returncode == 1
    assert end.stderr.startswith("Error: ")
    assert "cannot write: File too large" in end.stderr
    assert "Traceback" not in end.stderr
    assert not (tmp_path / "out").exists()


def test_damage_found_while_converting_leaves_nothing(job: Path, tmp_path: Path):
    broken = Path(shutil.copytree(job, tmp_path / "job"))
    (chunk,) = broken.glob("checkpoints/*/state/mdl_vars.params.layer1.w/0.0")
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"mdl_vars/params/layer1/w: chunk 0\.0 of .*damaged"):
        convert(broken, tmp_path / "out", PLAN_ONLY)
    assert [p.name for p in tmp_path.iterdir()] == ["job"]


@pytest.mark.parametrize("moved", [True, False])
def test_what_the_disk_changes_is_found_by_reading_back(
    job: Path, tmp_path: Path, moved: bool, monkeypatch: pytest.MonkeyPatch
):
    """A chunk that reads back differently is an error, also if it was copied without decoding."""
    name = "params/layer0.w/0.0" if moved else "state/optimizer.adam.mu.layer0.w/0.0"
    original = LocalStore.write_blocks

    def write_blocks(self: LocalStore, key: str, blocks: Any) -> None:
        original(self, key, blocks)
        if key.endswith(name):
            path = self.local_path(key)
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

    monkeypatch.setattr(LocalStore, "write_blocks", write_blocks)
    target = name.split("/")[1].replace(".", "/")
    with pytest.raises((VerificationError, CheckpointError), match=target):
        convert(job, tmp_path / "out", PLAN_ONLY)
    assert list(tmp_path.iterdir()) == []


def test_the_first_failure_stops_the_other_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    params = synthetic.random_params(count=1, rows=4000, columns=64)
    leaves = {
        "step": np.array(7, np.uint32),
        "mdl_vars/params/small/w": np.zeros((4, 4), np.float32),
    }
    leaves |= {f"mdl_vars/params/{name}": values for name, values in params.items()}
    job = synthetic.write_step(tmp_path / "checkpoint_00000007", leaves)
    written: list[int] = []
    failed = threading.Event()
    original = OrbaxSink.write

    def write(self: OrbaxSink, leaf: Any, tile: Any, values: np.ndarray) -> None:
        if leaf.target == "params/small/w":
            failed.set()
            raise OutputError("params/small/w: fails for the test")
        assert failed.wait(120)
        time.sleep(0.5)  # the failure is known long before the next tile begins
        written.append(tile.index[0])
        original(self, leaf, tile, values)

    monkeypatch.setattr(OrbaxSink, "write", write)
    options = ConvertOptions(PlanOptions(dtype="bfloat16"), memory=1 << 20, workers=2)
    with pytest.raises(OutputError, match="fails for the test"):
        convert(job, tmp_path / "out", options)
    assert len(written) <= 2  # of sixteen tiles


def test_tiles_shrink_with_memory_and_workers():
    assert tile_limit(1 << 30, 2) == 64 << 20
    assert tile_limit(64 << 20, 2) == tile_limit(128 << 20, 4) == 4 << 20
    assert tile_limit(1 << 20, 64) == 64 << 10
    assert default_workers() >= 2
