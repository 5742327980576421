"""The settings of a TimesFM checkpoint, which holds none: from sizes, public checkpoints and flags.

Read `published`, the table of public checkpoints, `sizes`, what names and shapes tell, then
`settings`, which weighs both and the user's values.
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
