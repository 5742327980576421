"""Where the numbers of a run go: history, event files, display, curves, traces.

Read `recorder`, which hands them out, then any of the others; nothing here knows of optimizers or
steps.
"""

from efficientids_flax.train.logs.costs import operations, peak_flops
from efficientids_flax.train.logs.curves import draw, save_curves
from efficientids_flax.train.logs.history import Row, read_history
from efficientids_flax.train.logs.recorder import Recorder
from efficientids_flax.train.logs.trace import Trace

__all__ = [
    "Recorder",
    "Row",
    "Trace",
    "draw",
    "operations",
    "peak_flops",
    "read_history",
    "save_curves",
]
