"""Reads what PAXml wrote: checkpoints of any layout, dumps of jobs, states of optimizers.

Read `layout`, which finds the checkpoint that a path means, then `checkpoint`, which opens it by
one of the `sources`; `names` and `metadata` are PAXml's own, `consistency` checks the tree by them,
`foreign` says what is no checkpoint of PAXml's. `infer` finds out the settings, of forecasters
`forecasters`; `experiments` is a table of published ones, `state` turns optimizer states into
optax's.
"""

from converters.paxml.checkpoint import Checkpoint, open_checkpoint
from converters.paxml.consistency import is_float
from converters.paxml.names import (
    NO_PREFIX,
    PARAMS,
    TRAIN_STATE,
    from_name,
    group_shape,
    join,
    to_dotted_name,
    to_pax_name,
)
