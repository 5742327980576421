"""Infers the settings of a TimesFM checkpoint from its sizes, public checkpoints and flags.

Read `published` first, the table of public checkpoints, then `sizes`, which reads names and shapes,
then `settings`, which combines both with the user's values.
"""

from converters.paxml.forecasters.published import (
    PUBLIC,
    forecasters_text,
    listed_forecasters,
    public,
    published,
)
from converters.paxml.forecasters.settings import infer_forecaster
from converters.paxml.forecasters.sizes import forecaster_facts
