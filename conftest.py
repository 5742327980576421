"""What all tests run with: XLA optimises nothing, hypothesis repeats itself, bytecode is kept.

Most of the tests' time was XLA's; so it compiles six times faster. `make demo` compares with the
real PAXml as users compile. It is set in the environment, for the processes that tests start too,
and stands there before JAX is imported.

A container may say that no bytecode is kept; each of some hundred processes would then compile
anew all that it imports, which takes as long as the import itself.

Equal programs are compiled once: JAX keeps them in a folder that the workers, the processes that
tests start and later runs share (`build/programs`, or what `JAX_COMPILATION_CACHE_DIR` names);
small ones not, since to write one takes longer than to compile it again. A process also keeps the
last ones, small ones too, in memory: an equal `Trainer` after another is traced, not compiled.

PyTorch computes on one thread: its others wait for work in a loop, which took half of the CPU time
of the tests against it, from whichever test ran beside.

Programs are lowered in one MLIR context, which JAX otherwise makes anew for each: a quarter of what
the smallest program costs was the loading of dialects.

Hypothesis takes the same examples in each run and looks at no clock;
`--hypothesis-profile=others` looks for others.
"""

import gc
import hashlib
import os
import platform
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hypothesis import settings

FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")
PROGRAMS = 500  # lowered in one context, which keeps types and constants of them all
KEPT = 300  # compiled programs in memory, about those of a file of tests
ROOM = 1_000_000_000  # bytes of compiled programs on disk


def programs() -> Path:
    """A folder for what this kind of processor runs: several may see one checkout."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else [platform.platform()]
    kinds = [line for line in lines if line.lower().startswith(("flags", "features"))]
    name = hashlib.sha256((kinds or lines)[0].encode()).hexdigest()[:8]
    return Path(__file__).parent / "build" / "programs" / name


def tidy(folder: Path) -> None:
    """Removes programs that killed processes left empty, and the older half of too many."""
    stored = sorted(folder.glob("*-cache"), key=lambda path: path.stat().st_mtime)
    sizes = [path.stat().st_size for path in stored]
    older = len(stored) // 2 if sum(sizes) > ROOM else 0
    for number, (path, size) in enumerate(zip(stored, sizes, strict=True)):
        if number < older or not size:
            path.unlink(missing_ok=True)


given = os.environ.get("XLA_FLAGS", "").split()
os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in FLAGS if flag not in given)])
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # a worker has that of the process above it
    stored_programs = programs()
    tidy(stored_programs)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(stored_programs)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("others", deadline=None)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Shares contexts, and lets the garbage collector rest.

    Tracing makes many small objects, and every 700th would have it look again through all that the
    tests import, which stays. A tenth of the tests' time was the collector's.
    """
    share_contexts()
    keep_programs()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def share_contexts() -> None:
    """Lowers what a thread compiles in one context, and after `PROGRAMS` in another.

    A JAX that makes its contexts elsewhere is left as it is.
    """
    mlir: Any = sys.modules.get("jax._src.interpreters.mlir")
    make = getattr(mlir, "make_ir_context", None)
    if make is None:
        return
    kept = threading.local()

    def context() -> Any:
        kept.left = getattr(kept, "left", 0) - 1
        if kept.left < 0:
            kept.context, kept.left = make(), PROGRAMS
        return kept.context

    mlir.make_ir_context = context


def keep_programs() -> None:
    """Takes a program that was compiled before, and is among the last `KEPT`, from memory.

    JAX asks for each in its folder, by a digest of the program, its devices and options, and
    compiles what is not there. A JAX that asks elsewhere is left as it is.
    """
    compiler: Any = sys.modules.get("jax._src.compiler")
    read = getattr(compiler, "_cache_read", None)
    compile_program = getattr(compiler, "_compile_and_write_cache", None)
    if read is None or compile_program is None:
        return
    kept: OrderedDict[str, Any] = OrderedDict()

    def keep(key: str, program: Any) -> None:
        kept[key] = program
        if len(kept) > KEPT:
            kept.popitem(last=False)

    def read_first_in_memory(name: str, key: str, *rest: Any) -> tuple[Any, Any]:
        program, seconds = kept.pop(key, None), 0
        if program is None:
            program, seconds = read(name, key, *rest)
        if program is not None:
            keep(key, program)  # as the last one
        return program, seconds

    def compile_and_keep(*given: Any) -> Any:
        *_, callbacks, _, key = given
        program = compile_program(*given)
        if not callbacks:  # which belong to one program
            keep(key, program)
        return program

    compiler._cache_read = read_first_in_memory
    compiler._compile_and_write_cache = compile_and_keep
