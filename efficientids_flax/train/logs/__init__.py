"""Outputs of a run's metrics: history, event files, display, curves, traces.

Read `recorder`, which distributes the metrics, then its outputs besides `train.history`:
`event_files`, `progress`, `notes`, and `curves` (also drawn by `training_metrics` and `preview`).
`costs` counts FLOPs, `trace` profiles. Nothing here depends on optimizers.
"""

from efficientids_flax.moved import left_names
from efficientids_flax.train.logs.costs import operations, peak_flops
from efficientids_flax.train.logs.curves import draw, save_curves
from efficientids_flax.train.logs.notes import tell
from efficientids_flax.train.logs.recorder import Recorder
from efficientids_flax.train.logs.trace import Trace

__getattr__ = left_names(__name__)
