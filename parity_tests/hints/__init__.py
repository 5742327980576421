"""Looks for the cause of a difference by trying the usual causes on the arrays.

Read `signatures` first, then `corrections` and `parameter_corrections`; `candidates` defines what a
correction is.
"""

from parity_tests.hints.signatures import Hint, find_hints
