"""Runs described by a configuration, in Python or in a file.

Read `config`, the sections and their checks, then `calls`, training in one call. `exported` writes
the model of a run, `reported` evaluates it in full. `file_config`, `model_section` and
`data_section` build modules and batches from the names in a file. `optimizer` makes the optimizer,
also for a resumed run, and `pipeline` trains by epochs.
"""

from efficientids_flax.moved import left_names
from efficientids_flax.train.run.calls import evaluate, train
from efficientids_flax.train.run.config import override, read_config
from efficientids_flax.train.run.exported import export, export_described
from efficientids_flax.train.run.file_config import built
from efficientids_flax.train.run.model_section import SimpleSection
from efficientids_flax.train.run.reported import Reported, evaluate_run

__getattr__ = left_names(__name__)
