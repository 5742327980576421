"""How far a value is off, and how far it may be.

Read `difference` and `tolerances`; `translate` says which values belong together,
`alignment` and `operations` what is done to them before.
"""

from parity_tests.compare.alignment import aligned, rows_of
from parity_tests.compare.difference import (
    EXACT_DTYPE,
    Difference,
    Distance,
    distance,
    first_failure,
    half_distance,
    judged,
)
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
