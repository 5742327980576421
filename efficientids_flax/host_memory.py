"""Keeps host memory between the steps of a training run on CPUs."""

import ctypes
import sys

# Options of mallopt(3) and their values.
_ARENAS, _MAPPED, _TRIM = -8, -4, -1
SETTINGS = ((_ARENAS, 1), (_MAPPED, 0), (_TRIM, -1))


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for later allocations, until this process ends.

    On CPUs, XLA allocates the memory of a step from the C library and frees it after the step.
    glibc returns large blocks to the system, which then has to clear every page again in the next
    step: a tenth to a quarter of a step's time (docs/reference/benchmarks.md). With this setting,
    the process keeps its peak memory. Call it before the first computation. It has no effect on
    GPUs and TPUs.

    Returns:
        Whether it succeeded; only glibc supports it.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    done = [library.mallopt(option, value) == 1 for option, value in SETTINGS]
    return all(done)
