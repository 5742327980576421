"""Reads what PAXml wrote: checkpoints of any layout, dumps of jobs, optimizer states.

Read `layout` first, which finds the checkpoint that a path refers to, then `checkpoint`, which
opens it with one of the `sources`. `names` and `metadata` handle PAXml's own names and metadata,
`consistency` checks the tree against them, and `foreign` recognises checkpoints that are not
PAXml's. `infer` finds the model's settings, `forecasters` those of TimesFM; `experiments` is a
table of published experiments. `state` turns optimizer states into optax's.
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
