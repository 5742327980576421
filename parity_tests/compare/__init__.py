"""Measures how far values differ, and how far they may.

Read `difference` and `tolerances` first. `translate` finds which values belong together,
`alignment` and `operations` bring them to the same form.
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
