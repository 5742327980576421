"""Rows of batches that are made when they are asked for: of sequences, of prompts, several in one.

Read `arrays`, what rows are, then `sequences`, the people's items in order, and `windows` and
`held_out`, the rows of training and of evaluation that are cut out of them; `prompts` puts texts
between the items, `masked` says that there are none, `packed` puts several rows into one.
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
