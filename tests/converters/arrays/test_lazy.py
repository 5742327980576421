"""Lazy expressions: any region of any chain equals the same region of NumPy's result."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.lazy import Array, Source, tile_regions
from converters.arrays.leaf import whole
from converters.arrays.structure import Joined, Merged, Part, Split, Transposed
from converters.arrays.values import Agreed, Cast, Debias, Scaled
from converters.errors import CheckpointError
from tests.leaves import FEW, MemoryLeaf, memory_leaves, own_readers, regions, values_of


@dataclass(frozen=True)
class Case:
    """An expression and its expected values."""

    array: Array
    values: np.ndarray


def source(values: np.ndarray, chunks: tuple[int, ...] | None = None, path: str = "leaf") -> Source:
    return Source(MemoryLeaf(values, values.shape if chunks is None else chunks, path))


def divisors(size: int) -> list[int]:
    return [part for part in range(1, size + 1) if size % part == 0]


def transposed(draw: st.DrawFn, case: Case) -> Case:
    axes = tuple(draw(st.permutations(range(case.values.ndim))))
    return Case(Transposed(case.array, axes), case.values.transpose(axes))


def merged(draw: st.DrawFn, case: Case) -> Case:
    if case.values.ndim < 2:
        return case
    axis = draw(st.integers(0, case.values.ndim - 2))
    shape = case.values.shape
    shape = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return Case(Merged(case.array, axis), case.values.reshape(shape))


def split(draw: st.DrawFn, case: Case) -> Case:
    if not case.values.ndim or case.values.ndim > 4:
        return case
    axis = draw(st.integers(0, case.values.ndim - 1))
    shape = case.values.shape
    outer = draw(st.sampled_from(divisors(shape[axis])))
    sizes = (outer, shape[axis] // outer)
    shape = (*shape[:axis], *sizes, *shape[axis + 1 :])
    return Case(Split(case.array, axis, sizes), case.values.reshape(shape))


def part(draw: st.DrawFn, case: Case) -> Case:
    if not case.values.ndim:
        return case
    axis = draw(st.integers(0, case.values.ndim - 1))
    start = draw(st.integers(0, case.values.shape[axis] - 1))
    drop = draw(st.booleans())
    stop = start + 1 if drop else draw(st.integers(start + 1, case.values.shape[axis]))
    values = case.values.take(range(start, stop), axis)
    return Case(Part(case.array, axis, start, stop, drop), values.squeeze(axis) if drop else values)


def joined(draw: st.DrawFn, case: Case) -> Case:
    new = not case.values.ndim or draw(st.booleans())
    axis = draw(st.integers(0, case.values.ndim - (not new)))
    cases = [case]
    for number in range(draw(st.integers(0, 3))):
        shape = list(case.values.shape)
        if not new:
            shape[axis] = draw(st.integers(1, 5))
        leaf = draw(memory_leaves(shape, case.values.dtype.name, f"other{number}"))
        cases.append(Case(Source(leaf), leaf.values))
    values = [c.values for c in cases]
    array = Joined(tuple(c.array for c in cases), axis, new)
    return Case(array, np.stack(values, axis) if new else np.concatenate(values, axis))


def cast(draw: st.DrawFn, case: Case) -> Case:
    dtype = np.dtype(draw(st.sampled_from(["float32", "bfloat16", "float64", "float16"])))
    return Case(Cast(case.array, dtype), case.values.astype(dtype))


def scaled(draw: st.DrawFn, case: Case) -> Case:
    axes = tuple(axis for axis in range(case.values.ndim) if draw(st.booleans()))
    leaf = draw(memory_leaves([case.values.shape[axis] for axis in axes], "float32", "factors"))
    spread = [size if axis in axes else 1 for axis, size in enumerate(case.values.shape)]
    product = case.values.astype(np.float64) * leaf.values.astype(np.float64).reshape(spread)
    return Case(Scaled(case.array, Source(leaf), axes), product.astype(case.values.dtype))


OPERATIONS: list[Callable[[st.DrawFn, Case], Case]] = [
    transposed, merged, split, part, joined, cast, scaled,
]  # fmt: skip


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Cases of a leaf with up to four operations on it."""
    leaf = draw(memory_leaves())
    case = Case(Source(leaf), leaf.values)
    for operation in draw(st.lists(st.sampled_from(OPERATIONS), max_size=4)):
        case = operation(draw, case)
    return case


def equal(found: np.ndarray, wanted: np.ndarray) -> bool:
    assert found.flags.c_contiguous
    return (found.dtype, found.shape, found.tobytes()) == (
        wanted.dtype,
        wanted.shape,
        wanted.tobytes(),
    )


@given(data=st.data(), case=cases())
@FEW
def test_any_region_of_any_chain(data: st.DataObject, case: Case):
    assert (case.array.shape, case.array.dtype) == (case.values.shape, case.values.dtype)
    assert equal(case.array.read(whole(case.array.shape), own_readers), case.values)
    for _ in range(5):
        region = data.draw(regions(case.array.shape))
        assert equal(case.array.read(region, own_readers), case.values[region])
        leaf, place = case.array.origin(region)
        assert leaf in case.array.leaves()
        assert all(0 <= p.start < p.stop for p in place)


@pytest.mark.parametrize("operation", OPERATIONS)
@given(data=st.data())
@FEW
def test_every_operation(operation: Callable[..., Case], data: st.DataObject):
    leaf = data.draw(memory_leaves())
    case = operation(data.draw, Case(Source(leaf), leaf.values))
    for _ in range(5):
        region = data.draw(regions(case.array.shape))
        assert equal(case.array.read(region, own_readers), case.values[region])


@given(case=cases())
@FEW
def test_what_is_straight_lies_one_after_another_in_its_leaf(case: Case):
    found = case.array.straight()
    if found is not None:
        leaf, before = found
        values = leaf.read().reshape(-1)[before : before + case.values.size]
        assert values.tobytes() == case.values.tobytes()


def test_what_is_straight():
    array = source(values_of((4, 6)), path="whole")
    assert array.straight() == (array.leaf, 0)
    rows = Part(array, 0, 1, 3)
    assert Merged(Split(rows, 1, (2, 3)), 0).straight() == (array.leaf, 6)
    assert Part(Part(rows, 0, 1, 2), 1, 2, 3, drop=True).straight() == (array.leaf, 14)
    for other in (
        Part(rows, 1, 0, 2), Transposed(array, (1, 0)), Joined((array, array), 0),
        Cast(array, np.dtype(np.float64)),
    ):  # fmt: skip
        assert other.straight() is None


@given(case=cases(), limit=st.integers(1, 400))
@FEW
def test_tiles_cover_the_array_once_within_the_limit(case: Case, limit: int):
    tile = case.array.tiles(limit)
    assert len(tile) == len(case.array.shape)
    assert math.prod(tile) * case.array.dtype.itemsize <= max(limit, case.array.dtype.itemsize)
    seen = np.zeros(case.array.shape, np.int8)
    for index, region in tile_regions(case.array.shape, tile):
        assert all(p.start == i * size for p, i, size in zip(region, index, tile, strict=True))
        seen[region] += 1
        assert equal(case.array.read(region, own_readers), case.values[region])
    assert (seen == 1).all()


@given(case=cases())
@FEW
def test_chunks_are_tiles_that_need_no_cut(case: Case):
    assert case.array.tiles(1 << 40) == case.array.chunks
    assert all(
        1 <= c <= max(s, 1) for c, s in zip(case.array.chunks, case.array.shape, strict=True)
    )


def rows_read(leaf: MemoryLeaf) -> int:
    """The largest span, in bytes, between the first and the last value of one read."""
    strides = [math.prod(leaf.values.shape[i + 1 :]) for i in range(leaf.values.ndim)]
    spans = [
        sum((p.stop - 1 - p.start) * s for p, s in zip(region, strides, strict=True)) + 1
        for region in leaf.reads
    ]
    return max(spans) * leaf.values.itemsize


@pytest.mark.parametrize(
    "make",
    [
        lambda array: Transposed(array, (1, 0)),
        lambda array: Cast(Transposed(array, (1, 0)), np.dtype(np.float64)),
        lambda array: Part(array, 1, 3, 4, drop=True),
        lambda array: Part(array, 1, 256, 512),
        lambda array: Part(Split(array, 1, (4, 128)), 1, 2, 3, drop=True),
        lambda array: Merged(array, 0),
        lambda array: Merged(Transposed(Split(array, 1, (4, 128)), (1, 0, 2)), 0),
        lambda array: Joined((array, array), 0),
        lambda array: Joined((array, array), 1, new_axis=True),
    ],
)
def test_a_large_chunk_is_read_in_bands_of_whole_rows(make: Callable[[Array], Array]):
    """With any operation: a stream that had to keep half of the chunk would exceed the limit."""
    leaf = MemoryLeaf(values_of((2048, 512)), (2048, 512))
    array, limit = make(Source(leaf)), 1 << 19
    for _, region in tile_regions(array.shape, array.tiles(limit)):
        array.read(region, own_readers)
    assert rows_read(leaf) <= limit


@pytest.mark.parametrize("sizes", [(103, 101), (64, 16), (99, 1), (12, 18, 30)])
def test_joined_tiles_are_no_crumbs(sizes: tuple[int, ...]):
    parts = [source(values_of((size, 4)), (min(size, 50), 4), f"{size}") for size in sizes]
    array = Joined(tuple(parts), 0)
    assert array.chunks[0] * 8 >= min(sizes[0], 50)
    values = np.concatenate([p.leaf.read() for p in parts])
    for _, region in tile_regions(array.shape, array.chunks):
        assert equal(array.read(region, own_readers), values[region])


def test_the_leaves_of_two_checkpoints_are_two_though_their_paths_agree():
    one, other = source(values_of((2,)), path="same"), source(values_of((2,), seed=1), path="same")
    assert Joined((one, other), 0).leaves() == [one.leaf, other.leaf]
    assert Joined((one, one), 0).leaves() == [one.leaf]


@given(
    data=st.data(),
    dtype=st.sampled_from(["float32", "bfloat16", "int8", "int4"]),
    beta=st.floats(0.5, 0.9999),
)
@FEW
def test_scaled_is_the_float64_product_rounded(data: st.DataObject, dtype: str, beta: float):
    leaf = data.draw(memory_leaves((3, 5, 4), dtype))
    counts = np.array(data.draw(st.lists(st.integers(0, 10**6), min_size=3, max_size=3)), np.int32)
    array = Scaled(Source(leaf), Debias(source(counts), beta), (0,), np.dtype(np.float32))
    factors = np.array([1.0 - beta ** int(count) for count in counts]).reshape(3, 1, 1)
    wanted = (leaf.values.astype(np.float64) * factors).astype(np.float32)
    assert equal(array.read(whole(array.shape), own_readers), wanted)


def test_scaled_makes_no_array_of_float64():
    import tracemalloc

    values = np.ones((1, 1024, 1024), np.float32)  # 4 MiB
    array = Scaled(source(values), source(np.ones(1024, np.float32), path="factors"), (2,))
    tracemalloc.start()
    array.read(whole(array.shape), own_readers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.2 * values.nbytes  # the values read and the result


@pytest.mark.parametrize("axes", [(0, 1), (), (1,)])
def test_factors_that_do_not_fit(axes: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"factors \[3\] do not fit shape \[3, 4\]"):
        Scaled(source(values_of((3, 4))), source(values_of((3,)), path="factors"), axes)


def test_factors_along_axes_in_another_order():
    with pytest.raises(ValueError, match="not in ascending order"):
        Scaled(source(values_of((3, 3))), source(values_of((3, 3)), path="factors"), (1, 0))


def test_too_large_and_undefined_values_pass_without_a_warning():
    values = np.array([1e300, -1e300, np.nan, 1.0])
    narrow = Cast(source(values), np.dtype(np.float32)).read((slice(0, 4),), own_readers)
    assert narrow.tobytes() == np.array([np.inf, -np.inf, np.nan, 1], np.float32).tobytes()
    twice = Scaled(source(values), source(np.array(2.0), path="factor"), (), np.dtype(np.float32))
    found = twice.read((slice(0, 4),), own_readers)
    assert found.tobytes() == np.array([np.inf, -np.inf, np.nan, 2], np.float32).tobytes()


def test_counters_agree():
    counters = (source(np.array(7, np.int32), path="a"), source(np.full(3, 7, np.int32), path="b"))
    array = Agreed(counters)
    assert equal(array.read((), own_readers), np.array(7, np.int32))
    assert array.origin(())[0].spec.path == "a"


def test_counters_that_differ_are_all_told():
    counters = (
        source(np.array(7, np.int32), path="a"),
        source(np.array([7, 8], np.int32), path="b"),
    )
    said = r"counters differ: a = 7, b = \[7, 8\]\. .*--raw-optimizer"
    with pytest.raises(CheckpointError, match=said):
        Agreed(counters).read((), own_readers)


@pytest.mark.parametrize(
    "make",
    [
        lambda array: Transposed(array, (0, 0)),
        lambda array: Transposed(array, (0,)),
        lambda array: Merged(array, 1),
        lambda array: Merged(array, -1),
        lambda array: Split(array, 0, (2, 2)),
        lambda array: Split(array, 2, (1, 1)),
        lambda array: Part(array, 0, 2, 4),
        lambda array: Part(array, 0, 2, 2),
        lambda array: Part(array, 2, 0, 1),
        lambda array: Joined((array, array), 2),
        lambda array: Joined((array, array), 3, new_axis=True),
        lambda array: Joined((array, source(values_of((3, 5)))), 0),
        lambda array: Joined((array, source(values_of((3, 4, 1)))), 0),
        lambda array: Joined((array, source(values_of((3, 4), "float64"))), 0),
        lambda array: Joined((array, source(values_of((4, 4)))), 0, new_axis=True),
    ],
)
def test_what_does_not_fit_is_refused_when_it_is_made(make: Callable[[Array], Array]):
    with pytest.raises(ValueError, match=r"fit|outside|put together"):
        make(source(values_of((3, 4))))
