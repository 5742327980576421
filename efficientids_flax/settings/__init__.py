"""Settings that a parameter tree does not determine, and which of them were assumed.

Read `table`, the settings and the values that jobs use; then `origins`, where a value came from.
`optimizer` does the same for learners, `wording` describes in words what was assumed.
"""

from efficientids_flax.settings.optimizer import NEEDED, OPEN_OPTIMIZER, assumed_optimizer
from efficientids_flax.settings.origins import (
    ASSUMED,
    DUMP,
    EXPERIMENT,
    FOUND,
    GIVEN,
    TREE,
    assumed,
    is_assumed,
    named_parts,
    origin_of,
    origins_of_leaves,
)
from efficientids_flax.settings.table import (
    HEAD,
    OPEN,
    OPEN_FORECAST,
    OPEN_ITEMS,
    OpenSetting,
    open_settings,
    value_at,
    with_values,
)
from efficientids_flax.settings.wording import assumed_lines, setting_text

__all__ = [
    "ASSUMED",
    "DUMP",
    "EXPERIMENT",
    "FOUND",
    "GIVEN",
    "HEAD",
    "NEEDED",
    "OPEN",
    "OPEN_FORECAST",
    "OPEN_ITEMS",
    "OPEN_OPTIMIZER",
    "TREE",
    "OpenSetting",
    "assumed",
    "assumed_lines",
    "assumed_optimizer",
    "is_assumed",
    "named_parts",
    "open_settings",
    "origin_of",
    "origins_of_leaves",
    "setting_text",
    "value_at",
    "with_values",
]
