"""Settings that a tree of parameters leaves open: which they are, and which of them were assumed.

Read `table`, which values jobs have, then `origins`, where a value came from.
"""

from efficientids_flax.settings.origins import (
    ASSUMED,
    DUMP,
    EXPERIMENT,
    FOUND,
    GIVEN,
    TREE,
    assumed,
    origin_of,
    origins_of_leaves,
)
from efficientids_flax.settings.table import (
    OPEN,
    OPEN_ITEMS,
    OpenSetting,
    open_settings,
    value_at,
    with_values,
)

__all__ = [
    "ASSUMED",
    "DUMP",
    "EXPERIMENT",
    "FOUND",
    "GIVEN",
    "OPEN",
    "OPEN_ITEMS",
    "TREE",
    "OpenSetting",
    "assumed",
    "open_settings",
    "origin_of",
    "origins_of_leaves",
    "value_at",
    "with_values",
]
