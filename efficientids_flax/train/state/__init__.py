"""The state of a run, its checkpoints, and its position in the data.

Read `carried`, the training state, then `disk` (checkpoints), `restored` and `resume`.
`fingerprint` identifies a run, by `description`s of its objects; `data_cursor` is the position in
the data. For several processes, `shared_batches` reads evaluation data, `same` compares their
settings, and `processes` exchanges messages. `placement` shards state and batches, `item_table`
splits off the item table and its moments, `kept` holds the best state of a run without a directory,
and `monitor` follows the evaluations.
"""

from efficientids_flax.moved import left_names
from efficientids_flax.train.keys import key_data, run_key
from efficientids_flax.train.state.carried import (
    Frozen,
    TrainState,
    half_precision,
    refuse_used,
    with_optimizer,
    without_frozen,
)
from efficientids_flax.train.state.data_cursor import (
    DataCursor,
    DataExhausted,
    PeekedCursor,
    Source,
)
from efficientids_flax.train.state.disk.checkpoint import Checkpoints
from efficientids_flax.train.state.disk.faults import DamagedCheckpoint, UnwrittenCheckpoint
from efficientids_flax.train.state.disk.lock import DirectoryInUse, locked
from efficientids_flax.train.state.fingerprint import (
    RunMismatch,
    loss_facts,
    model_facts,
    run_facts,
)
from efficientids_flax.train.state.item_table import (
    TABLE,
    Split,
    Tables,
    laid_out,
    split_table,
)
from efficientids_flax.train.state.kept import KeptState
from efficientids_flax.train.state.monitor import Monitor
from efficientids_flax.train.state.placement import (
    BatchPlacer,
    ModelConfig,
    default_mesh,
    of_each,
    state_shardings,
)
from efficientids_flax.train.state.processes import (
    InAll,
    ProcessFault,
    is_primary,
    problems_of_all,
    shared_fault,
)
from efficientids_flax.train.state.restored import (
    Start,
    of_other_model,
    refuse_model,
    refuse_words,
    restored,
)
from efficientids_flax.train.state.resume import resume, save
from efficientids_flax.train.state.same import refuse_others

__getattr__ = left_names(__name__)
