"""The training loop, and what makes it end.

Read `steps`, which takes them, `running`, what it works with, `supply`, where its batches come
from, `ends`, why a step was the last, and `preemption`, by which a signal stops it.
"""

from efficientids_flax.train.loop.preemption import (
    Interrupted,
    Preempted,
    StopRequest,
    stop_request,
)
from efficientids_flax.train.loop.running import Run, check_steps, stopped_before
from efficientids_flax.train.loop.steps import run_loop

__all__ = [
    "Interrupted",
    "Preempted",
    "Run",
    "StopRequest",
    "check_steps",
    "run_loop",
    "stop_request",
    "stopped_before",
]
