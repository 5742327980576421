"""Where the numbers of a run go: history, event files, display, curves, traces.

Read `recorder`, which hands them out, then where they go: `history` (kept in `rows`),
`event_files`, `progress`, `notes`, `curves` (drawn by `training_metrics` and `preview`); `costs`
and `trace` measure. Nothing here knows of optimizers.
"""

from efficientids_flax.train.logs.costs import operations, peak_flops
from efficientids_flax.train.logs.curves import draw, save_curves
from efficientids_flax.train.logs.history import read_history
from efficientids_flax.train.logs.notes import tell
from efficientids_flax.train.logs.recorder import Recorder
from efficientids_flax.train.logs.rows import Row, Rows
from efficientids_flax.train.logs.trace import Trace
