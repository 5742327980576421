"""A run's history, for its readers: `read_history(directory)` and the rows that it returns."""

from efficientids_flax.train.logs.history import History, read_history
from efficientids_flax.train.logs.rows import Row, Rows

__all__ = ["History", "Row", "Rows", "read_history"]
