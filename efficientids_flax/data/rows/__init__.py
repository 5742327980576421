"""Rows of batches, made on demand: from sequences, as prompts, or packed.

Read `arrays`, the interface of rows, then `sequences`, the users' items in order, and `windows` and
`held_out`, the rows for training and for evaluation that are cut out of them. `prompts` puts texts
between the items, `masked` marks every id as an item, `packed` puts several rows into one.
"""

from efficientids_flax.data.rows.arrays import ArrayRows, Arrays, Rows, as_rows
from efficientids_flax.data.rows.held_out import HeldOut
from efficientids_flax.data.rows.masked import ItemRows
from efficientids_flax.data.rows.packed import PackedRows
from efficientids_flax.data.rows.prompts import Prompting, PromptRows
from efficientids_flax.data.rows.sequences import Sequences
from efficientids_flax.data.rows.windows import WindowRows, Windows

__all__ = [
    "ArrayRows",
    "Arrays",
    "HeldOut",
    "ItemRows",
    "PackedRows",
    "PromptRows",
    "Prompting",
    "Rows",
    "Sequences",
    "WindowRows",
    "Windows",
    "as_rows",
]
