"""Finds settings that a checkpoint does not store, by fitting data: `find_settings`.

Read `samples`, the data; `moves`, the settings and values to try; `losses` and `invariances`, two
measures of fit; `climb`, the order of the search; `decide`, what can be concluded; and `find`,
which does all of it.
"""

from efficientids_flax.search.decide import Tried, Verdict
from efficientids_flax.search.find import Findings, find_settings
from efficientids_flax.search.invariances import momentum_of
from efficientids_flax.search.samples import Samples, read_samples

__all__ = [
    "Findings",
    "Samples",
    "Tried",
    "Verdict",
    "find_settings",
    "momentum_of",
    "read_samples",
]
