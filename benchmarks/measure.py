"""Runs a command as a separate process and measures its time, CPU time, memory and output."""

import contextlib
import dataclasses
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "from efficientids_flax.commands.program import main; main()"  # for `python -c`
BLOCK = 1 << 20  # bytes read at a time to bring a file into the page cache
DROP = Path("/proc/sys/vm/drop_caches")


class RunFailedError(RuntimeError):
    """A measured command failed; the message has the end of its output."""


@dataclass(frozen=True)
class Run:
    """The cost of one run.

    Attributes:
        wall: seconds from start to end.
        on_disk: seconds until all output is on disk too (`sync`).
        cpu: seconds of all its threads and processes, user and system.
        peak: peak memory in bytes (resident set); values below 45 MB are the parent's.
        written: bytes of its output files.
    """

    wall: float
    on_disk: float
    cpu: float
    peak: float
    written: float


def measure(command: Sequence[str], source: Path, output: Path, *, cold: bool) -> Run:
    """Run `command`, which reads `source` and makes `output`, from a disk at rest.

    command: command to run in the root of the repository.
    source: read into the page cache before, as far as memory allows; if `cold`, evicted from it
        (root only).
    output: removed before and after.

    Raises:
        RunFailedError: the command exits with another code than 0.
    """
    remove(output)
    os.sync()
    if cold:
        DROP.write_text("3")
    else:
        _read_all(source)
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        os.sync()
        on_disk = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace")[-2000:]
            raise RunFailedError(f"{' '.join(command)} exits with {process.returncode}:\n{text}")
    cpu = used.ru_utime + used.ru_stime
    run = Run(wall, on_disk, cpu, used.ru_maxrss * 1024.0, size_of(output))
    remove(output)
    return run


def processor() -> str:
    """The processor by name, model and widest vectors, and how many cores this process may use."""
    about: dict[str, str] = {}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        pairs = [line.partition(":") for line in lines]
        about = {key.strip(): value.strip() for key, _, value in reversed(pairs)}
    flags = about.get("flags", "").split()
    vectors = [name for name in ("avx2", "avx512f", "amx_tile") if name in flags]
    name = about.get("model name") or platform.processor() or platform.machine()
    model = f"family {about['cpu family']} model {about['model']}" if "model" in about else ""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    return ", ".join(filter(None, [name, model, " ".join(vectors), cores]))


def memory(name: str) -> float:
    """Memory of this process in bytes, by the kernel's field name."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.partition(f"{name}:")[2].split()[0])


def medians(runs: Sequence[Run]) -> Run:
    """The median of each figure, independently."""
    fields = [field.name for field in dataclasses.fields(Run)]
    return Run(*(median(getattr(run, field) for run in runs) for field in fields))


def size_of(place: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def remove(place: Path) -> None:
    """Remove a directory tree if it exists, and remains of an interrupted conversion beside it."""
    for path in (place, place.with_name(f"{place.name}.partial")):
        shutil.rmtree(path, ignore_errors=True)


def _read_all(place: Path) -> None:
    for path in sorted(place.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(BLOCK):
                    pass
