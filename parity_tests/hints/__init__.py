"""What a difference looks like: the usual causes, each tried on the arrays.

Read `signatures`, then `corrections` and `parameter_corrections`; `candidates` says what is tried.
"""

from parity_tests.hints.signatures import Hint, find_hints
