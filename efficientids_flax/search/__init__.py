"""Finds the settings that a checkpoint does not tell, from data: `find_settings`.

Read `samples`, what is judged by; `moves`, what is tried; `losses` and `invariances`, how well it
fits; `climb`, in which order; `decide`, what is then known; and `find`, which does all of it.
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
