"""Processes that tests start: whatever happens, they are killed and their pipes are closed.

One that is left behind warns when it is collected, in some later test, and fails that one.
"""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

PATIENCE = 240  # seconds after which a process counts as hanging, on a busy machine too


@contextmanager
def running(command: Sequence[Any], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process with pipes for what it writes, until the end of the block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(list(map(str, command)), **pipes, **options) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                process.communicate()


def together(
    commands: Sequence[Sequence[Any]], **options: Any
) -> list[subprocess.CompletedProcess[str]]:
    """How these end that run at once.

    Raises:
        subprocess.TimeoutExpired: one of them hangs.
    """
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        started = [stack.enter_context(running(c, text=True, **options)) for c in commands]
        ends = [p.communicate(timeout=max(deadline - time.monotonic(), 0.1)) for p in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *end)
        for process, end in zip(started, ends, strict=True)
    ]
