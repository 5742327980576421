"""Runs described by a configuration, in Python or in a file.

Read `config`, the sections and their checks, then `calls`; `exported` writes the model of a run,
`reported` evaluates it in full, `file_config`, `model_section` and `data_section` build what a file
only names, `optimizer` is that of a run, also of one that goes on, `pipeline` counts in epochs.
"""

from efficientids_flax.moved import left_names
from efficientids_flax.train.run.calls import evaluate, train
from efficientids_flax.train.run.config import override, read_config
from efficientids_flax.train.run.exported import export, export_described
from efficientids_flax.train.run.file_config import built
from efficientids_flax.train.run.model_section import SimpleSection
from efficientids_flax.train.run.reported import Reported, evaluate_run

__getattr__ = left_names(__name__)
