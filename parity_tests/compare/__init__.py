"""How far a value is off, and how far it may be.

Read `difference`, `tolerances` and `judge`; `translate` says which values belong together,
`alignment` and `operations` what is done to them before.
"""

from parity_tests.compare.alignment import aligned, rows_of
from parity_tests.compare.difference import (
    Difference,
    Distance,
    distance,
    first_failure,
    half_distance,
)
from parity_tests.compare.judge import EXACT_DTYPE, judged
from parity_tests.compare.operations import OPERATIONS, Context
from parity_tests.compare.tolerances import (
    HALF_DTYPES,
    HALF_NOISE,
    NOISE,
    QUANTUM,
    ROUNDING,
    TOLERANCES,
    tolerance,
)
from parity_tests.compare.translate import Wanted, wanted

__all__ = [
    "EXACT_DTYPE",
    "HALF_DTYPES",
    "HALF_NOISE",
    "NOISE",
    "OPERATIONS",
    "QUANTUM",
    "ROUNDING",
    "TOLERANCES",
    "Context",
    "Difference",
    "Distance",
    "Wanted",
    "aligned",
    "distance",
    "first_failure",
    "half_distance",
    "judged",
    "rows_of",
    "tolerance",
    "wanted",
]
