"""Codes of ids: small numbers as long as the ids fit into memory, else their place in the source.

The first `MOST` ids get the numbers 0, 1, 2, ... as they come. Once there are more, an id that has
no number gets `block << 24 | its place among the ids of the block`, in every block a new one, and
the engine finds out which codes are one id. Either way a code grows with its id's first occurrence,
and no two ids share one.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from efficientids_flax.prepare.reading import to_arrow, to_numpy

BITS = 24  # of a code that are its place in the block; blocks count from 1
MOST = 1 << 20  # ids that have a number; about 150 MB
IDS = pa.schema([("code", pa.int64()), ("id", pa.string())])


class Codes:
    """Of users or of items.

    Args:
        writer: of the table of codes and ids.
        most: ids that have a number, at most 2**24.

    Attributes:
        complete: every id has a number.
    """

    def __init__(self, writer: pq.ParquetWriter, most: int = MOST) -> None:
        self._writer, self._most = writer, most
        self._numbers: dict[str, int] = {}
        self.complete = True

    def of(self, column: pa.Array, block: int) -> pa.Array:
        """The codes of a block's ids, int64; new ones are written with their ids."""
        coded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        ids = coded.dictionary.to_pylist()
        found = list(map(self._numbers.get, ids))
        new = [place for place, code in enumerate(found) if code is None]
        for place in new:
            if len(self._numbers) < self._most:
                found[place] = self._numbers[ids[place]] = len(self._numbers)
            else:
                found[place], self.complete = block << BITS | place, False
        codes = np.array(found, np.int64)
        columns = [to_arrow(codes[new]), coded.dictionary.take(to_arrow(np.array(new, np.int64)))]
        self._writer.write_table(pa.table(columns, schema=IDS))
        return to_arrow(codes[to_numpy(coded.indices)])
