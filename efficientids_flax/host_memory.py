"""Memory of the host, kept between the steps of a training run on CPUs."""

import ctypes
import sys

# Options of mallopt(3) and what they are set to.
_ARENAS, _MAPPED, _TRIM = -8, -4, -1
SETTINGS = ((_ARENAS, 1), (_MAPPED, 0), (_TRIM, -1))


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next allocation, for good in this process.

    On CPUs XLA takes the memory of a step from the C library and gives it back after the step;
    glibc hands large pieces back to the system, which then has to clear every page again for the
    next step: a tenth to a quarter of a step's time (docs/reference/benchmarks.md). The process
    keeps what it once had at its peak. Call it before the first computation. On GPUs and TPUs it
    means nothing.

    Returns:
        Whether it was done: only glibc has this.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    done = [library.mallopt(option, value) == 1 for option, value in SETTINGS]
    return all(done)
