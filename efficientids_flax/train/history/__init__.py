"""The history of a run, the metrics of each step: `read_history(directory)`.

Read `rows`, how the history is kept in memory, then `files`, how it is written and read.
"""

from efficientids_flax.train.history.files import NAME as HISTORY
from efficientids_flax.train.history.files import History, read_history
from efficientids_flax.train.history.rows import Row, Rows

__all__ = ["HISTORY", "History", "Row", "Rows", "read_history"]
