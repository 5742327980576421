"""Where the numbers of a run go: its history, event files, display, curves, traces.

Read `recorder`, which hands them out, then where they go besides `train.history`: `event_files`,
`progress`, `notes`, `curves` (drawn by `training_metrics` and `preview`); `costs` and `trace`
measure. Nothing here knows of optimizers.
"""

from efficientids_flax.moved import left_names
from efficientids_flax.train.logs.costs import operations, peak_flops
from efficientids_flax.train.logs.curves import draw, save_curves
from efficientids_flax.train.logs.notes import tell
from efficientids_flax.train.logs.recorder import Recorder
from efficientids_flax.train.logs.trace import Trace

__getattr__ = left_names(__name__)
