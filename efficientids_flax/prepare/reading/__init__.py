"""Reads files of rows as columns: fast if all is regular, and exact about what is wrong if not.

Read `arrays`, conversion to NumPy; `streams`, the bytes of a file; `blocks`, whole rows of them;
`malformed`, `times` and `part`, the rules for single values; then the readers of blocks,
`delimited`, `lines` and `columnar`; `usual`, the check after reading all rows at once; `look`, the
first rows of a file; and `rows`, all of them.
"""

from efficientids_flax.prepare.reading.arrays import to_arrow, to_numpy
from efficientids_flax.prepare.reading.blocks import SIZE
from efficientids_flax.prepare.reading.look import Look, look
from efficientids_flax.prepare.reading.malformed import Malformed, MalformedError
from efficientids_flax.prepare.reading.part import Part
from efficientids_flax.prepare.reading.rows import rows_of
from efficientids_flax.prepare.reading.streams import UnreadableError
from efficientids_flax.prepare.reading.times import NAMES as UNIT_NAMES
from efficientids_flax.prepare.reading.times import PER_SECOND, UNITS, Times, date, times_of
