"""What a run carries and keeps: its state, its checkpoints, its place in the data.

Read `carried`, then `checkpoint` and `resume`; `data_cursor` is the place in the data,
`placement` and `processes` where all of it lies, `best` which checkpoint is the best,
`monitor` how the evaluations went so far,
`kept` the best state of a run without a directory,
`shared_batches` what several processes read of an evaluation.
"""

from efficientids_flax.train.state.carried import Frozen, TrainState, key_data, without_frozen
from efficientids_flax.train.state.checkpoint import Checkpoints
from efficientids_flax.train.state.data_cursor import DataCursor, DataExhausted, Source
from efficientids_flax.train.state.kept import KeptState
from efficientids_flax.train.state.monitor import Monitor
from efficientids_flax.train.state.placement import (
    BatchPlacer,
    ModelConfig,
    default_mesh,
    state_shardings,
)
from efficientids_flax.train.state.processes import initialize
from efficientids_flax.train.state.resume import PeekedCursor, save
