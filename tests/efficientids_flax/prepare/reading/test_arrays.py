"""Numbers to NumPy and back, and that pandas is not imported for it."""

import numpy as np
import pyarrow as pa
import pytest

from efficientids_flax.prepare.reading import to_arrow, to_numpy


@pytest.mark.parametrize("kind", ["int8", "int32", "int64", "float32", "float64", "bool"])
@pytest.mark.parametrize("length", [0, 1, 9, 64])
def test_there_and_back(kind: str, length: int):
    values = (np.arange(2 * length) % 3)[::2].astype(kind)
    made = to_arrow(values)
    assert made.equals(pa.array(values)) and made.type == pa.array(values).type
    if kind != "bool":
        assert (to_numpy(made) == values).all()
        assert (to_numpy(pa.chunked_array([made[:3], made[3:]])) == values).all()
        assert (to_numpy(made[1:]) == values[1:]).all()
