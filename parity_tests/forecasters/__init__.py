"""Compares a converted TimesFM model with recordings of the original, or of transformers' port.

Read `recorded` first, for what a folder contains, then `run`, which computes the same with our
model, `rows`, for how far a row may differ, and `checked`, which combines them. `trained` takes the
next training step.
"""

from parity_tests.forecasters.checked import check_forecaster
from parity_tests.forecasters.recorded import (
    ForecasterRecording,
    is_forecaster,
    read_forecaster,
)
