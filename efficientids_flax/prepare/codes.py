"""Codes of ids: consecutive numbers while ids fit into memory, else the place of an occurrence.

The first `MOST` ids get the numbers 0, 1, 2, ... in order of occurrence. After that, an id without
a number gets `block << 24 | its index among the distinct ids of the block`, a new code in each
block; the engine later finds which codes belong to one id. In both cases a code grows with the
id's first occurrence, and no two ids share a code.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from efficientids_flax.prepare.reading import to_arrow, to_numpy

BITS = 24  # low bits of a code: the index in the block; blocks count from 1
MOST = 1 << 20  # ids with a number; about 150 MB
IDS = pa.schema([("code", pa.int64()), ("id", pa.string())])


class Codes:
    """Assigns codes to ids of users, or of items.

    Args:
        writer: writer of the table of codes and ids.
        most: how many ids get a number, at most 2**24.

    Attributes:
        complete: whether every id so far has a number.
    """

    def __init__(self, writer: pq.ParquetWriter, most: int = MOST) -> None:
        self._writer, self._most = writer, most
        self._numbers: dict[str, int] = {}
        self.complete = True

    def of(self, column: pa.Array, block: int) -> pa.Array:
        """The codes of a block's ids, int64; new codes are written to the table with their ids."""
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
