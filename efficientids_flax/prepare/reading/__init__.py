"""Files of rows as columns: exact about what is wrong in which line, and fast where nothing is.

Read `arrays`, how numbers go to NumPy, `streams`, bytes of a file, `blocks`, whole rows of them,
`malformed`, `times` and `part`, what single values may be; then the readers of blocks, `delimited`,
`lines` and `columnar`, and `usual`, when they may take all rows at once; `look` sees the first rows
of a file, `rows` reads all.
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
