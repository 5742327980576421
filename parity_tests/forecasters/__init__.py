"""A converted TimesFM model against recordings of the original, or of transformers' port of it.

Read `recorded`, what a folder holds, then `run`, which computes the same with our model, `rows`,
how far a row may be off, and `checked`, which puts them together; `trained` takes the next step.
"""

from parity_tests.forecasters.checked import check_forecaster
from parity_tests.forecasters.recorded import (
    ForecasterRecording,
    is_forecaster,
    read_forecaster,
)
