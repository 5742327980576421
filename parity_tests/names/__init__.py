"""Tables that translate the names of an origin; the manifest's field `names` says which.

Read `table` first, then `praxis`; `transformers` and `own` have few names.
"""

from collections.abc import Mapping

from parity_tests.names.own import OWN
from parity_tests.names.praxis import PRAXIS
from parity_tests.names.table import NameTable
from parity_tests.names.transformers import TRANSFORMERS

__all__ = ["TABLES"]

TABLES: Mapping[str, NameTable] = {
    "praxis": PRAXIS,
    "transformers": TRANSFORMERS,
    "efficientids_flax": OWN,
}
