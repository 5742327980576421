"""Weights with their low-rank additions, against the formulas of the adapters in NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays import LowRank, Source, whole
from tests.leaves import FEW, MemoryLeaf, own_readers, regions, values_of


def source(values: np.ndarray) -> Source:
    return Source(MemoryLeaf(values, values.shape, "leaf"))


@FEW
@given(st.data(), st.booleans(), st.sampled_from([(6, 4), (4, 2, 3)]))
def test_parts_are_those_of_the_whole(data: st.DataObject, dora: bool, shape: tuple[int, ...]):
    rows, columns = shape[0], int(np.prod(shape[1:]))
    weight, first = values_of(shape), values_of((rows, 2), seed=1)
    second, magnitude = values_of((columns, 2), seed=2), values_of((1, *shape[1:]), seed=3)
    wanted = weight + np.einsum("...dr,...nr->...dn", first, second).reshape(shape)
    if dora:
        wanted = magnitude * wanted / np.linalg.norm(wanted, axis=0, keepdims=True)
    made = LowRank(
        source(weight), source(first), source(second), source(magnitude) if dora else None
    )
    region = data.draw(regions(shape))
    found = made.read(region, own_readers)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    # The formula above is in float32, ours in float64.
    np.testing.assert_allclose(found, wanted[region], rtol=3e-6, atol=3e-6)


def test_magnitudes_may_be_one_for_all_rows_or_one_each():
    weight, first, second = values_of((3, 2)), values_of((3, 1), seed=1), values_of((2, 1), seed=2)
    both = weight + first @ second.T
    both /= np.linalg.norm(both, axis=0)
    for magnitude in (values_of((2,), seed=3), values_of((3, 2), seed=4)):
        made = LowRank(*map(source, (weight, first, second, magnitude)))
        found = made.read(whole((3, 2)), own_readers)
        np.testing.assert_allclose(found, magnitude * both, rtol=1e-6)


@pytest.mark.parametrize("sizes", [((3, 1), (3, 1)), ((3, 2), (2, 1)), ((3,), (2, 1))])
def test_additions_that_do_not_fit_are_told(sizes: tuple[tuple[int, ...], ...]):
    first, second = (source(values_of(size)) for size in sizes)
    with pytest.raises(ValueError, match=r"expected \[3, rank\] and \[2, rank\]"):
        LowRank(source(values_of((3, 2))), first, second)
    good = source(values_of((3, 1))), source(values_of((2, 1)))
    with pytest.raises(ValueError, match="magnitudes"):
        LowRank(source(values_of((3, 2))), *good, source(values_of((3,))))
