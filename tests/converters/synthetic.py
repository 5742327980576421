"""Makes checkpoints of a chosen size in PAXml's zarr layout (1.1), and runs commands on them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from tests.paths import ROOT
from tests.paxml_states import ZSTD, write_metadata
from tests.running import PATIENCE

ADAM = ("--set", "beta1=0.9", "--set", "beta2=0.99")
STEP = 7


def command(*arguments: str | Path, name: str = "convert") -> list[str]:
    """The command line of a command of the program, warnings as errors."""
    # A process that a shell runs in the background ignores Ctrl-C, and so do its children.
    call = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from efficientids_flax.commands.program import main; main()"
    )
    return [sys.executable, "-W", "error", "-c", call, name, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """The environment that a command runs in."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **more}


def run(
    *arguments: str | Path, name: str = "convert", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        command(*arguments, name=name),
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def peak_memory(*arguments: str | Path) -> int:
    """Bytes of memory that a conversion in a process of its own needed at most.

    Taken from `/proc`: `ru_maxrss` of a child starts with what its parent had.
    """
    script = (
        "from efficientids_flax.commands.program import main\n"
        "try: main()\n"
        "finally:\n"
        "    for line in open('/proc/self/status'):\n"
        "        if line.startswith('VmHWM'): print('peak', line.split()[1])\n"
    )
    end = subprocess.run(
        [sys.executable, "-c", script, "convert", *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert end.returncode == 0, end.stderr
    return 1024 * int(end.stdout.splitlines()[-1].removeprefix("peak "))


def adam_leaves(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Step, parameters and Adam moments of a small `TrainState`, by canonical path."""
    leaves: dict[str, np.ndarray] = {"step": np.array(STEP, np.uint32)}
    leaves |= {f"mdl_vars/params/{name}": values for name, values in params.items()}
    leaves["opt_states/0/0/count"] = np.array(STEP, np.int32)
    leaves["opt_states/0/2/count"] = np.array(STEP, np.int32)
    for field, factor in (("m", 0.01), ("v", 0.0001)):
        leaves |= {
            f"opt_states/0/2/{field}/params/{name}": np.abs(values) * np.float32(factor)
            for name, values in params.items()
        }
    return leaves


def write_step(
    step: Path,
    leaves: Mapping[str, np.ndarray],
    chunks: Mapping[str, Sequence[int]] | None = None,
    compressor: Mapping[str, Any] | None = ZSTD,
) -> Path:
    """Write leaves as PAXml 1.1 does, in zarr v2; one chunk per leaf unless `chunks` is given."""
    for path, values in leaves.items():
        name = "".join(f"_{key}" if key.isdigit() else f".{key}" for key in path.split("/"))[1:]
        spec: dict[str, Any] = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{step / 'state' / name}/"},
            "metadata": {
                "shape": list(values.shape),
                "chunks": list((chunks or {}).get(path, values.shape)),
                "dtype": values.dtype.str if values.dtype.kind != "V" else values.dtype.name,
                "compressor": compressor,
                "fill_value": None,
            },
        }
        ts.open(spec, create=True).result().write(values).result()
    write_metadata(step, 1.1, leaves)
    return step


def write_job(job: Path, params: Mapping[str, np.ndarray]) -> Path:
    """A job directory with one step of parameters and Adam moments."""
    write_step(job / "checkpoints" / f"checkpoint_{STEP:08d}", adam_leaves(params))
    return job


def random_params(count: int, rows: int, columns: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`count` float32 matrices."""
    generator = np.random.default_rng(seed)
    return {
        f"layer{index}/w": generator.standard_normal((rows, columns), np.float32)
        for index in range(count)
    }
