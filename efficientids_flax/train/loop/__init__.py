"""The training loop, and what makes it end.

Read `steps`, the loop, `running`, its parts and schedule, `supply`, its source of batches, `ends`,
errors that end a run, and `preemption`, stopping by a signal.
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
